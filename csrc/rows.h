// Operations on one row of activations at a time: norms, activations, rotation, sums. In place is allowed.
#pragma once

namespace tgi {

enum Activation { kSilu, kGelu, kGeluTanh, kRelu, kQuickGelu, kReluSquared };  // xielu is a function of its own

// y = x / sqrt(mean(x^2) + eps) * scale, which may be nullptr
void rms_norm(const float* x, const float* scale, float eps, int width, float* y);
// y = (x - mean) / sqrt(variance + eps) * scale + bias; scale and bias may be nullptr
void layer_norm(const float* x, const float* scale, const float* bias, float eps, int width, float* y);
// y = activation(x)
void activate(int kind, const float* x, int width, float* y);
// gate = min(gate, limit), up = up between -limit and limit, plus 1
void limit_gate(float* gate, float* up, float limit, int width);
// y = activation(gate) * up
void activate_gated(int kind, const float* gate, const float* up, int width, float* y);
// Turns the pairs (x[i], x[i + half]) of each head, or (x[2i], x[2i + 1]) if `adjacent`, by cos and sin [half].
void rotate(float* heads, int count, int head_dim, const float* cos, const float* sin, int half, bool adjacent);
// See ops.xielu of the reference. parameters: p, n, beta, eps.
void xielu(const float* x, const float* parameters, int width, float* y);
// y *= x, or its silu (kSilu) or sigmoid (TGI_SIGMOID_FUNCTION); kind -1: x itself
void multiply_by(int kind, float* y, const float* x, int width);
// y += x
void add_to(float* y, const float* x, int width);
// y *= factor
void scale_by(float* y, float factor, int width);
// y = y between -limit and limit
void clamp(float* y, float limit, int width);
// y = cap * tanh(y / cap)
void soft_cap(float* y, float cap, int width);

}  // namespace tgi
