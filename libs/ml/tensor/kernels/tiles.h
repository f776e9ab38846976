#pragma once

#include <algorithm>
#include <cstdint>

#include "panels.h"
#include "vectors.h"

// Products of tiles small enough for the caches.
namespace tunefleet {

/** Queries, and keys, of a tile: whole groups and whole panels. */
constexpr int kTile = 96;
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

/** [count, width] times `factor` as [width / 16][kTile][16], zeros beyond the width. */
inline void pack_rows(const float* rows, int count, int64_t width, float factor, float* panels) { pack_panels(rows, width, count, width, factor, kTile * kPanel, panels); }

/** The transpose of [count, width] times `factor` as [count / 16][width][16], zeros beyond the count. */
inline void pack_columns(const float* rows, int count, int64_t width, float factor, float* panels) { pack_turned_panels(rows, width, width, count, factor, width * kPanel, panels); }

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
        f32x8 sums[count()][2];
        clear(sums);
        sum_products<count()>(a + row * depth, depth, 1, b, depth, sums);
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
        f32x8 sums[count()][2];
        clear(sums);
        const float* const from = Across ? a + span.from * kTile + row : a + row * kTile + span.from;
        sum_products<count()>(from, Across ? 1 : kTile, Across ? kTile : 1, b + span.from * kPanel, span.to - span.from, sums);
        for (int i = 0; i < count(); ++i) {
          float* to = c + (row + i) * width + column;
          for_each_vector(columns, [&](int64_t at, int lanes) { store_up_to(to + at, load_up_to(to + at, lanes) + sums[i][at / kLanes], lanes); });
        }
      });
    }
  }
}

}  // namespace tunefleet
