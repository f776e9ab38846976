#pragma once

#include <cmath>
#include <cstdint>

#include "vectors.h"

namespace tunefleet {

template <typename Term>
inline float row_sum(int64_t width, Term&& term) {
  f32x8 lanes{};
  for_each_vector(width, [&](int64_t at, int count) { lanes += term(at, count); });
  return sum(lanes);
}

/** y = weight * x / sqrt(mean(x²) + epsilon) of one row. Zhang and Sennrich 2019, arXiv:1910.07467. @returns the inverse root */
inline float rms_norm(const float* x, const float* weight, float epsilon, int64_t width, float* y) {
  const float squares = row_sum(width, [&](int64_t at, int count) {
    const f32x8 values = load_up_to(x + at, count);
    return values * values;
  });
  const float factor = 1.0f / std::sqrt(squares / width + epsilon);
  for_each_vector(width, [&](int64_t at, int count) { store_up_to(y + at, load_up_to(x + at, count) * factor * load_up_to(weight + at, count), count); });
  return factor;
}

}  // namespace tunefleet
