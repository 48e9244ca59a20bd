"""`tgi deploy`: replicas on Ray Serve, and what runs of them."""
