#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "vectors.h"

// Six rows by sixteen columns of a product are summed in twelve registers of eight lanes: a step reads two vectors and six numbers for twelve multiply-adds. The right
// factor lies in panels of sixteen columns, the left one as it is or in groups of six rows.
namespace tunefleet {

constexpr int kGroup = 6;
constexpr int kPanel = 2 * kLanes;

inline int64_t groups_of(int64_t rows) { return (rows + kGroup - 1) / kGroup; }
inline int64_t panels_of(int64_t columns) { return (columns + kPanel - 1) / kPanel; }

/** Register by register: an initialiser would fill memory. */
template <int Rows>
TUNEFLEET_INLINE void clear(f32x8 (&sums)[Rows][2]) {
  TUNEFLEET_UNROLL
  for (int row = 0; row < Rows; ++row) sums[row][0] = sums[row][1] = f32x8{};
}

/** sums += a b of one step, the rows of `a` lying `row_stride` apart. */
template <int Rows>
TUNEFLEET_INLINE void sum_step(const float* a, int64_t row_stride, const float* panel, f32x8 (&sums)[Rows][2]) {
  const f32x8 low = load(panel);
  const f32x8 high = load(panel + kLanes);
  TUNEFLEET_UNROLL
  for (int row = 0; row < Rows; ++row) {
    const f32x8 factor = all(a[row * row_stride]);
    sums[row][0] += factor * low;
    sums[row][1] += factor * high;
  }
}

/**
 * sums += a b, each from the first step to the last. Rows of `a` lie `row_stride` apart and a row's numbers `step_stride`.
 * @param panel [steps, 16]   @param next what is fetched meanwhile, if anything: a cache line every eight steps
 */
template <int Rows>
TUNEFLEET_INLINE void sum_products(const float* a, int64_t row_stride, int64_t step_stride, const float* panel, int64_t steps, f32x8 (&sums)[Rows][2], const float* next = nullptr) {
  int64_t step = 0;
  for (; step + kLanes <= steps; step += kLanes) {
    if (next) __builtin_prefetch(next + step * (kLineFloats / kLanes));
    TUNEFLEET_UNROLL
    for (int i = 0; i < kLanes; ++i) sum_step<Rows>(a + (step + i) * step_stride, row_stride, panel + (step + i) * kPanel, sums);
  }
  for (; step < steps; ++step) sum_step<Rows>(a + step * step_stride, row_stride, panel + step * kPanel, sums);
}

/** Calls body(std::integral_constant-like count) with the number of rows known to the compiler. */
template <int Rows, typename Body>
inline void with_rows(int64_t rows, Body&& body) {
  if constexpr (Rows > 1) {
    if (rows < Rows) return with_rows<Rows - 1>(rows, body);
  }
  body(std::integral_constant<int, Rows>{});
}

/** Columns of [steps, stride] times `factor` as panels that begin `panel_size` numbers apart, zeros behind the last. */
template <typename Number>
inline void pack_panels(const Number* rows, int64_t stride, int64_t steps, int64_t columns, float factor, int64_t panel_size, float* panels) {
  for (int64_t step = 0; step < steps; ++step, rows += stride, panels += kPanel) {
    float* to = panels;
    int64_t at = 0;
    for (; at + kPanel <= columns; at += kPanel, to += panel_size) {
      store(to, load(rows + at) * factor);
      store(to + kLanes, load(rows + at + kLanes) * factor);
    }
    for (int64_t column = 0; at < columns && column < kPanel; ++column) to[column] = at + column < columns ? widen(rows[at + column]) * factor : 0.0f;
  }
}

/** The same of the transpose: rows of [columns, stride]. */
template <typename Number>
inline void pack_turned_panels(const Number* rows, int64_t stride, int64_t steps, int64_t columns, float factor, int64_t panel_size, float* panels) {
  for (; columns > 0; columns -= kPanel, rows += kPanel * stride, panels += panel_size) {
    float* to = panels;
    int64_t step = 0;
    for (; columns >= kPanel && step + kLanes <= steps; step += kLanes, to += kLanes * kPanel) {
      for (int half = 0; half < kPanel; half += kLanes) {
        f32x8 block[kLanes];
        TUNEFLEET_UNROLL
        for (int i = 0; i < kLanes; ++i) block[i] = load(rows + (half + i) * stride + step) * factor;
        transpose(block);
        TUNEFLEET_UNROLL
        for (int i = 0; i < kLanes; ++i) store(to + i * kPanel + half, block[i]);
      }
    }
    for (; step < steps; ++step, to += kPanel) {
      for (int column = 0; column < kPanel; ++column) to[column] = column < columns ? widen(rows[column * stride + step]) * factor : 0.0f;
    }
  }
}

/** Up to six rows of [rows, stride] as a group: [steps, 6], zeros behind the last. */
inline void pack_group(const float* from, int64_t stride, int64_t steps, int64_t rows, float* to) {
  int64_t step = 0;
  // A vector reaches two numbers beyond its step, which the next one overwrites; so the last steps are written one by one.
  for (; rows >= kGroup && step + kLanes < steps; step += kLanes, to += kLanes * kGroup) {
    f32x8 block[kLanes] = {};
    TUNEFLEET_UNROLL
    for (int row = 0; row < kGroup; ++row) block[row] = load(from + row * stride + step);
    transpose(block);
    TUNEFLEET_UNROLL
    for (int i = 0; i < kLanes; ++i) store(to + i * kGroup, block[i]);
  }
  for (; step < steps; ++step, to += kGroup) {
    for (int row = 0; row < kGroup; ++row) to[row] = row < rows ? from[row * stride + step] : 0.0f;
  }
}

}  // namespace tunefleet
