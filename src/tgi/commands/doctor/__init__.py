"""`tgi doctor`: what this machine has for serving, and what would make it faster."""
