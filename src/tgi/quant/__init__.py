"""Quantisation: how weights become codes. Stored formats and rounding on the fly give `kernels.coded.CodedWeight`."""
