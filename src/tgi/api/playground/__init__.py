"""The pages that browsers get: the playground, the live page, and what the latter shows."""
