// What the opaque handles of the C interface are.
#pragma once
#include <memory>
#include <vector>

#include "arena.h"
#include "pool.h"

struct tgi_pool {
  tgi::Pool pool;
};

struct tgi_arena {
  tgi::Arena arena;
  std::vector<std::unique_ptr<tgi::Arena>> staging;  // of bfloat16 layers that are not finished, or not narrow
};
