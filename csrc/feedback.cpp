// The factors of error feedback: see `tgi_feedback` and tgi/kernels/inputs.py, which defines them.
#include <math.h>
#include <string.h>

#include <algorithm>

#include "hadamard.h"
#include "handles.h"
#include "tgi.h"

namespace tgi {
namespace {

using Matrix = double[kRotation][kRotation];

// H of a rotated block: entry i, j of Had diag(importance) Had is number i ^ j of the transform of the importance.
void rotated_moment(const float* importance, int length, Matrix& moment) {
  double spectrum[kRotation];
  for (int i = 0; i < length; i++) spectrum[i] = (double)importance[i] / length;
  for (int apart = 1; apart < length; apart *= 2)
    for (int i = 0; i < length; i++)
      if (!(i & apart)) {
        const double a = spectrum[i], b = spectrum[i + apart];
        spectrum[i] = a + b;
        spectrum[i + apart] = a - b;
      }
  for (int i = 0; i < length; i++)
    for (int j = 0; j < length; j++) moment[i][j] = spectrum[i ^ j];
}

// H = R R^T in place, R upper triangular. False where H is not positive.
bool factorise(Matrix& h, int length) {
  double column[kRotation];
  for (int j = length - 1; j >= 0; j--) {
    if (!(h[j][j] > 0)) return false;
    h[j][j] = sqrt(h[j][j]);
    for (int i = 0; i < j; i++) column[i] = h[i][j] /= h[j][j];
    for (int i = 0; i < j; i++)
      for (int l = i; l < j; l++) h[i][l] -= column[i] * column[l];
  }
  return true;
}

// Row i of R^-1 over its diagonal, from the rows below. inverse: their rows, not divided.
void invert(const Matrix& r, int length, Matrix& inverse, float* factors) {
  for (int i = length - 1; i >= 0; i--) {
    double* row = inverse[i];
    std::fill(row, row + length, 0.0);
    for (int k = i + 1; k < length; k++)
      for (int j = k; j < length; j++) row[j] -= r[i][k] * inverse[k][j];
    for (int j = i + 1; j < length; j++) {
      factors[i * kRotation + j] = (float)row[j];
      row[j] /= r[i][i];
    }
    row[i] = 1 / r[i][i];
  }
}

// Of up to a whole block of columns, which are powers of two that are rotated alone.
void block_factors(const float* importance, int count, float* factors) {
  static thread_local Matrix moment, inverse;
  memset(factors, 0, sizeof(float) * kRotation * kRotation);
  for (int begin = 0; begin < count;) {
    const int length = rotation_length(count - begin);
    rotated_moment(importance + begin, length, moment);
    if (factorise(moment, length)) invert(moment, length, inverse, factors + begin * kRotation + begin);
    begin += length;
  }
}

}  // namespace
}  // namespace tgi

void tgi_feedback_factors(tgi_pool* pool, const float* importance, int in, float* factors) {
  using namespace tgi;
  const int blocks = (in + kRotation - 1) / kRotation;
  auto work = [&](const Member& member) {
    for (int64_t block = member.begin(blocks); block < member.end(blocks); block++) {
      const int begin = (int)block * kRotation;
      block_factors(importance + begin, std::min(kRotation, in - begin), factors + size_t(begin) * kRotation);
    }
  };
  pool->pool.run(work);
}
