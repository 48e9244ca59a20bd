"""Conversations: what a chat request means, the prompt it becomes, and the parts its answer is made of."""
