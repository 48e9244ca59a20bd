#include "rows.h"

#include <math.h>

#include "simd/simd.h"

namespace tgi {
namespace {

// Calls body(offset, lanes) for each vector of a row; lanes is 16 but for the last.
template <class Body>
inline void for_each_vector(int width, const Body& body) {
  int k = 0;
  for (; k + kLanes <= width; k += kLanes) body(k, kLanes);
  if (k < width) body(k, width - k);
}

inline F get(const float* p, int lanes) { return lanes == kLanes ? load(p) : load_part(p, lanes); }
inline void put(float* p, F x, int lanes) { lanes == kLanes ? store(p, x) : store_part(p, x, lanes); }

template <int Kind>
inline F apply(F x) {
  if constexpr (Kind == kSilu) return mul(x, sigmoid(x));
  if constexpr (Kind == kGelu) {
    return mul(mul(set(0.5f), x), add(set(1.0f), erf(mul(x, set(0.70710678f)))));
  }
  if constexpr (Kind == kGeluTanh) {
    const F cubic = fma(mul(mul(x, x), x), set(0.044715f), x);
    return mul(mul(set(0.5f), x), add(set(1.0f), tanh(mul(cubic, set(0.79788456f)))));
  }
  if constexpr (Kind == kRelu) return if_less(x, zero(), zero(), x);  // not max: what is not a number stays so
  if constexpr (Kind == kReluSquared) return if_less(x, zero(), zero(), mul(x, x));
  return mul(x, sigmoid(mul(x, set(1.702f))));
}

template <int Kind>
void activate_row(const float* x, const float* up, int width, float* y) {
  for_each_vector(width, [&](int k, int lanes) {
    F value = apply<Kind>(get(x + k, lanes));
    if (up) value = mul(value, get(up + k, lanes));
    put(y + k, value, lanes);
  });
}

void choose_activation(int kind, const float* x, const float* up, int width, float* y) {
  switch (kind) {
    case kSilu: return activate_row<kSilu>(x, up, width, y);
    case kGelu: return activate_row<kGelu>(x, up, width, y);
    case kGeluTanh: return activate_row<kGeluTanh>(x, up, width, y);
    case kRelu: return activate_row<kRelu>(x, up, width, y);
    case kReluSquared: return activate_row<kReluSquared>(x, up, width, y);
    default: return activate_row<kQuickGelu>(x, up, width, y);
  }
}

}  // namespace

void rms_norm(const float* x, const float* scale, float eps, int width, float* y) {
  F squares = zero();
  for_each_vector(width, [&](int k, int lanes) {
    const F v = get(x + k, lanes);
    squares = fma(v, v, squares);
  });
  const F factor = set(1.0f / sqrtf(sum(squares) / (float)width + eps));
  for_each_vector(width, [&](int k, int lanes) {
    const F value = mul(get(x + k, lanes), factor);
    put(y + k, scale ? mul(value, get(scale + k, lanes)) : value, lanes);
  });
}

void layer_norm(const float* x, const float* scale, const float* bias, float eps, int width, float* y) {
  F total = zero();
  for_each_vector(width, [&](int k, int lanes) { total = add(total, get(x + k, lanes)); });
  const F mean = set(sum(total) / (float)width);
  F squares = zero();
  for_each_vector(width, [&](int k, int lanes) {
    F v = sub(get(x + k, lanes), mean);
    if (lanes < kLanes) {  // the lanes that do not exist are not zero any more
      float part[kLanes];
      store(part, v);
      v = load_part(part, lanes);
    }
    squares = fma(v, v, squares);
  });
  const F factor = set(1.0f / sqrtf(sum(squares) / (float)width + eps));
  for_each_vector(width, [&](int k, int lanes) {
    F value = mul(sub(get(x + k, lanes), mean), factor);
    if (scale) value = mul(value, get(scale + k, lanes));
    if (bias) value = add(value, get(bias + k, lanes));
    put(y + k, value, lanes);
  });
}

void activate(int kind, const float* x, int width, float* y) { choose_activation(kind, x, nullptr, width, y); }

void limit_gate(float* gate, float* up, float limit, int width) {
  clamp(up, limit, width);
  for_each_vector(width, [&](int k, int lanes) {
    const F x = get(gate + k, lanes), high = set(limit);
    put(gate + k, if_less(high, x, high, x), lanes);
    put(up + k, add(get(up + k, lanes), set(1.0f)), lanes);
  });
}

void activate_gated(int kind, const float* gate, const float* up, int width, float* y) {
  choose_activation(kind, gate, up, width, y);
}

void rotate(float* heads, int count, int head_dim, const float* cos, const float* sin, int half, bool adjacent) {
  for (int head = 0; head < count; head++) {
    float* x = heads + head * head_dim;
    if (adjacent) {
      for (int i = 0; i < half; i++) {
        const float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * cos[i] - b * sin[i];
        x[2 * i + 1] = b * cos[i] + a * sin[i];
      }
      continue;
    }
    for_each_vector(half, [&](int i, int lanes) {
      const F a = get(x + i, lanes), b = get(x + half + i, lanes), c = get(cos + i, lanes), s = get(sin + i, lanes);
      put(x + i, sub(mul(a, c), mul(b, s)), lanes);
      put(x + half + i, add(mul(b, c), mul(a, s)), lanes);
    });
  }
}

void xielu(const float* x, const float* parameters, int width, float* y) {
  const auto softplus = [](float v) { return v > 20 ? v : log1pf(expf(v)); };
  const float beta = parameters[2], a = softplus(parameters[0]), b = beta + softplus(parameters[1]);
  for (int k = 0; k < width; k++)  // expm1 to its last bits: its argument is mostly near 0
    y[k] = (x[k] > 0 ? a * x[k] * x[k] : (expm1f(x[k] < parameters[3] ? x[k] : parameters[3]) - x[k]) * b) + beta * x[k];
}

void multiply_by(int kind, float* y, const float* x, int width) {
  for_each_vector(width, [&](int k, int lanes) {
    F factor = get(x + k, lanes);
    if (kind >= 0) factor = kind == kSilu ? mul(factor, sigmoid(factor)) : sigmoid(factor);
    put(y + k, mul(get(y + k, lanes), factor), lanes);
  });
}

void add_to(float* y, const float* x, int width) {
  for_each_vector(width, [&](int k, int lanes) { put(y + k, add(get(y + k, lanes), get(x + k, lanes)), lanes); });
}

void scale_by(float* y, float factor, int width) {
  for_each_vector(width, [&](int k, int lanes) { put(y + k, mul(get(y + k, lanes), set(factor)), lanes); });
}

void clamp(float* y, float limit, int width) {
  for_each_vector(width, [&](int k, int lanes) {  // what is not a number stays so
    const F x = get(y + k, lanes), low = set(-limit), high = set(limit);
    put(y + k, if_less(x, low, low, if_less(high, x, high, x)), lanes);
  });
}

void soft_cap(float* y, float cap, int width) {
  for_each_vector(width, [&](int k, int lanes) {
    put(y + k, mul(set(cap), tanh(mul(get(y + k, lanes), set(1.0f / cap)))), lanes);
  });
}

}  // namespace tgi
