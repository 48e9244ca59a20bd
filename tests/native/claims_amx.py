"""A pytest plugin (`-p tests.native.claims_amx`): the processor is taken to have AMX, which the library emulates."""

from tgi.kernels.native import library

of_the_processor = library._runnable  # pyright: ignore[reportPrivateUsage]


library._runnable = lambda probe: ["avx512_amx", *of_the_processor(probe)]  # pyright: ignore[reportPrivateUsage]
