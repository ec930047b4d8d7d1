"""The command `cnnkernels`: a file a subcommand, and what several share."""
