"""Making quantised checkpoints: `tgi quantize`, a process of its own with torch. Algorithms are `quant.making`'s."""
