// Handles, versions, and what the processor can run.
#include <new>

#include "handles.h"
#include "tgi.h"

int tgi_abi(void) { return TGI_ABI; }

const char* tgi_level(void) {
#if defined(__AMX_INT8__)
  return "avx512_amx";
#elif defined(__AVX512BF16__)
  return "avx512_bf16";
#elif defined(__AVX512VNNI__)
  return "avx512";
#elif defined(__AVXVNNI__)
  return "avx2_vnni";
#elif defined(__AVX2__)
  return "avx2";
#elif defined(__aarch64__) && defined(__ARM_NEON) && !defined(TGI_PORTABLE)
#if defined(__ARM_FEATURE_MATMUL_INT8)
  return "neon_i8mm";
#elif defined(__ARM_FEATURE_DOTPROD)
  return "neon_dotprod";
#else
  return "neon";
#endif
#else
  return "portable";
#endif
}

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

// Whether the operating system saves these register sets (bits of XCR0).
bool saves(unsigned bits) {
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & bits) == bits;
}

// Linux grants the large AMX registers on request, once for the process.
bool grants_amx() {
#if defined(__linux__)
  constexpr int kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}

bool is_amd() {
  unsigned a, b, c, d;
  return __get_cpuid(0, &a, &b, &c, &d) && b == 0x68747541 && d == 0x69746e65 && c == 0x444d4163;  // AuthenticAMD
}

}  // namespace

const char* tgi_levels(void) {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return "portable";
  const bool fma = c >> 12 & 1, f16c = c >> 29 & 1, xsave = c >> 27 & 1;
  if (!fma || !f16c || !xsave || !saves(0x6)) return "portable";
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b >> 5 & 1)) return "portable";
  const bool f = b >> 16 & 1, dq = b >> 17 & 1, bw = b >> 30 & 1, vl = b >> 31 & 1, vnni = c >> 11 & 1;
  const bool avx512 = f && dq && bw && vl && vnni && saves(0xe6);
  const bool amx = avx512 && (d >> 22 & 1) && (d >> 24 & 1) && (d >> 25 & 1)  // bf16, tile, int8
                    && saves(0x60000) && grants_amx();
  const bool more = __get_cpuid_count(7, 1, &a, &b, &c, &d);
  const bool avx_vnni = more && (a >> 4 & 1);
  // Intel's processors take longer for a pair of bfloat16 than for two multiply-adds of float32.
  const bool bf16 = avx512 && more && (a >> 5 & 1) && is_amd();
  if (bf16) return avx_vnni ? "avx512_bf16 avx512 avx2_vnni avx2 portable" : "avx512_bf16 avx512 avx2 portable";
  if (amx) return avx_vnni ? "avx512_amx avx512 avx2_vnni avx2 portable" : "avx512_amx avx512 avx2 portable";
  if (avx512) return avx_vnni ? "avx512 avx2_vnni avx2 portable" : "avx512 avx2 portable";
  return avx_vnni ? "avx2_vnni avx2 portable" : "avx2 portable";
}
#elif defined(__aarch64__)
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace {

bool has(const char* feature, unsigned long word, int bit) {
#if defined(__APPLE__)
  int value = 0;
  size_t size = sizeof value;
  (void)word, (void)bit;
  return sysctlbyname(feature, &value, &size, nullptr, 0) == 0 && value;
#elif defined(__linux__)
  (void)feature;
  return getauxval(word) >> bit & 1;
#else
  (void)feature, (void)word, (void)bit;
  return false;
#endif
}

}  // namespace

const char* tgi_levels(void) {
  constexpr unsigned long kWord1 = 16, kWord2 = 26;  // AT_HWCAP, AT_HWCAP2
  const bool dot = has("hw.optional.arm.FEAT_DotProd", kWord1, 20);
  if (dot && has("hw.optional.arm.FEAT_I8MM", kWord2, 13)) return "neon_i8mm neon_dotprod neon portable";
  return dot ? "neon_dotprod neon portable" : "neon portable";
}
#else
const char* tgi_levels(void) { return "portable"; }
#endif

tgi_pool* tgi_pool_create(int threads) {
  try {
    return new tgi_pool{tgi::Pool(threads)};
  } catch (...) {  // no more threads to be had
    return nullptr;
  }
}

void tgi_pool_destroy(tgi_pool* pool) { delete pool; }
int tgi_pool_size(const tgi_pool* pool) { return pool->pool.size(); }

tgi_arena* tgi_arena_create(void) { return new (std::nothrow) tgi_arena{}; }
void tgi_arena_destroy(tgi_arena* arena) { delete arena; }
size_t tgi_arena_used(const tgi_arena* arena) {
  size_t used = arena->arena.used();
  for (const auto& one : arena->staging) used += one->used();
  return used;
}
