"""Independent models in numpy: of the hardware, for the interpreter, and of what operators compute, for them."""
