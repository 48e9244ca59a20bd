"""`tgi chat`: a conversation in the terminal with a server, which is started where there is none."""
