"""Load generation through the public HTTP path: `tgi bench` and `text-generation-benchmark`.

Owns the HTTP client, the loads, the figures and how they are shown. Does not own the command lines
(`launcher.bench`). Talks to any server over HTTP, so it knows nothing of `api`, `serving` or `engine`.
"""
