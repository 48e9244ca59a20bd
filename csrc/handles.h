// What the opaque handles of the C interface are.
#pragma once
#include "arena.h"
#include "pool.h"

struct tgi_pool {
  tgi::Pool pool;
};

struct tgi_arena {
  tgi::Arena arena;
};
