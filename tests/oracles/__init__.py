"""Independent models of the hardware, in numpy, that the interpreter's own are tested against."""
