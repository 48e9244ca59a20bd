"""HTTP only: routes, request and response types, streaming."""
