"""What every route goes through: keys, permits, bodies, calls; and the routes about the server itself."""
