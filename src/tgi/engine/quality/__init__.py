"""What a format of weights costs and gives: `tgi quantize-report`."""
