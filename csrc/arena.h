// Memory for weights: large anonymous mappings that only grow, on huge pages where the system allows them.
//
// Pages are touched first by whoever packs the weights into them.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <vector>

namespace tgi {

class Arena {
 public:
  Arena() = default;
  ~Arena();
  Arena(const Arena&) = delete;

  // Zeroed, aligned to 64 bytes, freed with the arena. nullptr if the system refuses.
  void* allocate(size_t bytes);
  size_t used() const { return used_; }

 private:
  struct Chunk {
    uint8_t* memory;
    size_t bytes;
    size_t taken;
  };
  std::vector<Chunk> chunks_;
  size_t used_ = 0;
};

}  // namespace tgi
