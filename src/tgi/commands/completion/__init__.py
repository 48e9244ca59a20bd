"""`tgi completion`: what shells complete of the commands, made from their flags."""
