#pragma once

#include <algorithm>
#include <cstdint>

#include "vectors.h"

// Products of tiles small enough for the caches. Six rows by sixteen columns of the result are summed in twelve registers of eight lanes, the right factor
// lying in panels of sixteen columns, so that a step reads two vectors and six numbers for twelve multiply-adds.
namespace tunefleet {

/** Queries, and keys, of a tile: whole groups and whole panels. */
constexpr int kTile = 96;
constexpr int kPanel = 2 * kLanes;
constexpr int kGroup = 6;
constexpr int kGroups = kTile / kGroup;
static_assert(kTile % kGroup == 0 && kTile % kPanel == 0, "tiles are cut into groups and panels");

struct Span {
  int from = 0;
  int to = 0;
  bool empty() const { return from >= to; }
  void include(int begin, int end) {
    from = empty() ? begin : std::min(from, begin);
    to = std::max(to, end);
  }
};

inline int64_t panels_of(int64_t columns) { return (columns + kPanel - 1) / kPanel; }

/** [count, width] times `factor` as [width / 16][kTile][16], zeros beyond the width. */
inline void pack_rows(const float* rows, int count, int64_t width, float factor, float* panels) {
  for (int64_t at = 0; at < width; at += kPanel, panels += kTile * kPanel) {
    const int columns = static_cast<int>(std::min<int64_t>(kPanel, width - at));
    const int low = std::min(columns, kLanes);
    for (int row = 0; row < count; ++row) {
      const float* from = rows + row * width + at;
      store(panels + row * kPanel, load_up_to(from, low) * factor);
      store(panels + row * kPanel + kLanes, columns == kPanel ? load(from + kLanes) * factor : load_some(from + low, columns - low) * factor);
    }
  }
}

/** One number of each of eight rows. */
inline f32x8 gather(const float* from, int64_t stride) {
  return f32x8{from[0], from[stride], from[2 * stride], from[3 * stride], from[4 * stride], from[5 * stride], from[6 * stride], from[7 * stride]};
}

/** The transpose of [count, width] times `factor` as [count / 16][width][16], zeros beyond the count. */
inline void pack_columns(const float* rows, int count, int64_t width, float factor, float* panels) {
  int row = 0;
  for (; row + kPanel <= count; row += kPanel, panels += width * kPanel) {
    const float* const low = rows + row * width;
    const float* const high = low + kLanes * width;
    for (int64_t at = 0; at < width; ++at) {
      store(panels + at * kPanel, gather(low + at, width) * factor);
      store(panels + at * kPanel + kLanes, gather(high + at, width) * factor);
    }
  }
  if (row == count) return;
  std::fill_n(panels, width * kPanel, 0.0f);
  for (int column = 0; row + column < count; ++column) {
    for (int64_t at = 0; at < width; ++at) panels[at * kPanel + column] = rows[(row + column) * width + at] * factor;
  }
}

/** @tparam Across whether `a` is the transpose: [steps, stride], its columns being the rows here */
template <int Rows, bool Across>
inline __attribute__((always_inline)) void sum_products(const float* a, int64_t stride, const float* panel, int64_t steps, f32x8 (&sums)[Rows][2]) {
  for (int64_t step = 0; step < steps; ++step) {
    const f32x8 low = load(panel + step * kPanel);
    const f32x8 high = load(panel + step * kPanel + kLanes);
#pragma GCC unroll 6
    for (int row = 0; row < Rows; ++row) {
      const float factor = Across ? a[step * stride + row] : a[row * stride + step];
      sums[row][0] += factor * low;
      sums[row][1] += factor * high;
    }
  }
}

/** Calls body(std::integral_constant-like count) with the number of rows known to the compiler. */
template <int Rows, typename Body>
inline void with_rows(int rows, Body&& body) {
  if constexpr (Rows > 1) {
    if (rows < Rows) return with_rows<Rows - 1>(rows, body);
  }
  body(std::integral_constant<int, Rows>{});
}

/**
 * c = a b for every group of rows and the panels of columns it spans; other numbers of c stay.
 * @param a [rows, depth]   @param b packed columns, depth by kTile   @param spans of columns, one per group   @param c [rows, kTile]
 */
inline void multiply_spanned(const float* a, int rows, int64_t depth, const float* b, const Span* spans, float* c) {
  for (int column = 0; column < kTile; column += kPanel, b += depth * kPanel) {
    for (int row = 0; row < rows; row += kGroup) {
      const Span& span = spans[row / kGroup];
      if (span.from >= column + kPanel || span.to <= column) continue;
      with_rows<kGroup>(rows - row, [&](auto count) {
        f32x8 sums[count()][2] = {};
        sum_products<count(), false>(a + row * depth, depth, b, depth, sums);
        for (int i = 0; i < count(); ++i) {
          store(c + (row + i) * kTile + column, sums[i][0]);
          store(c + (row + i) * kTile + column + kLanes, sums[i][1]);
        }
      });
    }
  }
}

/**
 * c += a b, where group of rows g has numbers other than zero at the steps of spans[g] only.
 * @tparam Across: a is [steps, kTile] and its transpose meant; else [rows, kTile]   @param b packed rows   @param c [rows, width]
 */
template <bool Across>
void add_product(const float* a, int rows, const Span* spans, const float* b, int64_t width, float* c) {
  for (int64_t column = 0; column < width; column += kPanel, b += kTile * kPanel) {
    const int columns = static_cast<int>(std::min<int64_t>(kPanel, width - column));
    for (int row = 0; row < rows; row += kGroup) {
      const Span& span = spans[row / kGroup];
      if (span.empty()) continue;
      with_rows<kGroup>(rows - row, [&](auto count) {
        f32x8 sums[count()][2] = {};
        sum_products<count(), Across>(Across ? a + span.from * kTile + row : a + row * kTile + span.from, kTile, b + span.from * kPanel, span.to - span.from, sums);
        for (int i = 0; i < count(); ++i) {
          float* to = c + (row + i) * width + column;
          for_each_vector(columns, [&](int64_t at, int lanes) { store_up_to(to + at, load_up_to(to + at, lanes) + sums[i][at / kLanes], lanes); });
        }
      });
    }
  }
}

}  // namespace tunefleet
