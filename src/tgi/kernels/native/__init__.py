"""The native CPU kernels of csrc/, called through ctypes: loading, packing, and one call for a whole step."""
