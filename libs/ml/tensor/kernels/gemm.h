#pragma once

#include <algorithm>
#include <cstdint>

#include "parallel.h"
#include "vectors.h"

namespace tunefleet {

/** Rows and columns of the block of results that registers hold while they are summed. */
constexpr int kTileRows = 6;
constexpr int kTileColumns = 2 * kLanes;

/** What a product is made of. Optional parts are null. */
struct Product {
  const float* x;  // [rows, in]
  int64_t rows;
  int64_t in;
  int64_t out;
  const float* bias;      // [out]
  const float* residual;  // [rows, out]
  const float* narrow;    // [rows, rank]
  const float* update;    // [rank, out]
  int64_t rank;
  float* y;  // [rows, out]
};

namespace gemm {

/** A panel of right factors, as many inputs as fit the first-level cache together with the rows they meet. */
constexpr int64_t kInputsMax = 384;
/** Columns whose panels are made at a time: they stay in the cache that the cores share. */
constexpr int64_t kColumnsMax = 3072;
/** A piece of work: rows that stay in the second-level cache, and columns. */
constexpr int64_t kRowsPerChunk = 20 * kTileRows;
constexpr int64_t kColumnsPerChunk = 16 * kTileColumns;

/** sums += aᵀ b, a [count, 6] of which `Rows` columns count, b [count, 16] */
template <int Rows>
TUNEFLEET_INLINE void multiply_tile(const float* a, const float* b, int64_t count, f32x8 (&sums)[Rows][2]) {
  for (int64_t k = 0; k < count; ++k) {
    const f32x8 low = load(b + k * kTileColumns);
    const f32x8 high = load(b + k * kTileColumns + kLanes);
    TUNEFLEET_UNROLL
    for (int r = 0; r < Rows; ++r) {
      const f32x8 factor = all(a[k * kTileRows + r]);
      sums[r][0] += factor * low;
      sums[r][1] += factor * high;
    }
  }
}

/** Both factors of some inputs, laid out as tiles read them; with the last inputs the low-rank update's, too. */
struct Slice {
  int64_t inputs;
  int64_t rank;  // 0: no update
  int64_t first_column;
  int64_t columns;
  const float* rows;           // [rows / 6, inputs, 6]
  const float* narrow;         // [rows / 6, rank, 6]
  const float* panels;         // [columns / 16, inputs, 16]
  const float* update_panels;  // [columns / 16, rank, 16]
  bool is_first;
  bool is_last;
};

/** A sum, what was there before and what is added, to y. */
template <typename Load, typename Store>
TUNEFLEET_INLINE void write(const Product& p, const Slice& s, int64_t at, int64_t column, f32x8 value, Load&& load_some_of, Store&& store_some_of) {
  if (!s.is_first) value += load_some_of(p.y + at);
  if (s.is_last && p.bias) value += load_some_of(p.bias + column);
  if (s.is_last && p.residual) value += load_some_of(p.residual + at);
  store_some_of(p.y + at, value);
}

template <int Rows>
void finish_tile(const Product& p, const Slice& s, int64_t row, int64_t panel) {
  f32x8 sums[Rows][2];
  TUNEFLEET_UNROLL
  for (int r = 0; r < Rows; ++r) sums[r][0] = sums[r][1] = f32x8{};
  const int64_t column = s.first_column + panel * kTileColumns;
  // Rows of y lie far apart, so nobody else would fetch them in time.
  TUNEFLEET_UNROLL
  for (int r = 0; r < Rows; ++r) __builtin_prefetch(p.y + (row + r) * p.out + column, 1);
  multiply_tile<Rows>(s.rows + row * s.inputs, s.panels + panel * s.inputs * kTileColumns, s.inputs, sums);
  if (s.rank > 0) multiply_tile<Rows>(s.narrow + row * s.rank, s.update_panels + panel * s.rank * kTileColumns, s.rank, sums);
  const int64_t width = std::min<int64_t>(kTileColumns, p.out - column);
  TUNEFLEET_UNROLL
  for (int r = 0; r < Rows; ++r) {
    const int64_t at = (row + r) * p.out + column;
    if (width == kTileColumns) {
      write(p, s, at, column, sums[r][0], [](const float* from) { return load(from); }, [](float* to, f32x8 value) { store(to, value); });
      write(p, s, at + kLanes, column + kLanes, sums[r][1], [](const float* from) { return load(from); }, [](float* to, f32x8 value) { store(to, value); });
      continue;
    }
    for (int64_t begin = 0; begin < width; begin += kLanes) {
      const int count = static_cast<int>(std::min<int64_t>(kLanes, width - begin));
      const f32x8 value = begin == 0 ? sums[r][0] : sums[r][1];
      write(p, s, at + begin, column + begin, value, [count](const float* from) { return load_up_to(from, count); }, [count](float* to, f32x8 result) { store_up_to(to, result, count); });
    }
  }
}

inline void finish_rows(const Product& p, const Slice& s, int64_t row, int64_t rows, int64_t panel) {
  switch (rows) {
    case 6: return finish_tile<6>(p, s, row, panel);
    case 5: return finish_tile<5>(p, s, row, panel);
    case 4: return finish_tile<4>(p, s, row, panel);
    case 3: return finish_tile<3>(p, s, row, panel);
    case 2: return finish_tile<2>(p, s, row, panel);
    default: return finish_tile<1>(p, s, row, panel);
  }
}

inline void multiply_slice(const Product& p, const Slice& s) {
  const int64_t row_chunks = (p.rows + kRowsPerChunk - 1) / kRowsPerChunk;
  const int64_t column_chunks = (s.columns + kColumnsPerChunk - 1) / kColumnsPerChunk;
  parallel(static_cast<uint32_t>(row_chunks * column_chunks), [&](uint32_t chunk) {
    const int64_t first_row = chunk % row_chunks * kRowsPerChunk;
    const int64_t last_row = std::min(p.rows, first_row + kRowsPerChunk);
    const int64_t first_panel = chunk / row_chunks * (kColumnsPerChunk / kTileColumns);
    const int64_t last_panel = std::min((s.columns + kTileColumns - 1) / kTileColumns, first_panel + kColumnsPerChunk / kTileColumns);
    for (int64_t panel = first_panel; panel < last_panel; ++panel) {
      for (int64_t row = first_row; row < last_row; row += kTileRows) finish_rows(p, s, row, std::min<int64_t>(kTileRows, last_row - row), panel);
    }
  });
}

/** Sixteen columns of [rank, out] as a panel. */
inline void pack_update(const Product& p, int64_t column, float* to) {
  const int64_t width = std::min<int64_t>(kTileColumns, p.out - column);
  for (int64_t r = 0; r < p.rank; ++r, to += kTileColumns) {
    std::copy_n(p.update + r * p.out + column, width, to);
    std::fill(to + width, to + kTileColumns, 0.0f);
  }
}

/** Six rows of some columns as [columns, 6], zeros behind the last row. */
inline void pack_rows(const float* x, int64_t stride, int64_t rows, int64_t columns, float* to) {
  if (rows >= kTileRows) {
    for (int64_t k = 0; k < columns; ++k, to += kTileRows) {
      TUNEFLEET_UNROLL
      for (int r = 0; r < kTileRows; ++r) to[r] = x[r * stride + k];
    }
    return;
  }
  for (int64_t k = 0; k < columns; ++k, to += kTileRows) {
    for (int r = 0; r < kTileRows; ++r) to[r] = r < rows ? x[r * stride + k] : 0;
  }
}

/** Room for the factors of a slice; a thread keeps its own from call to call. */
struct Buffers {
  Scratch rows, narrow, panels, update_panels;
};

/**
 * y = x w + bias + narrow update + residual, for many rows. Blocked as in Goto and van de Geijn 2008, Anatomy of high-performance matrix multiplication. Each result is
 * summed in an order that depends on the number of inputs alone.
 * @param pack called with (column, begin, end, to) writes inputs begin to end of columns `column` to `column` + 16 as [end - begin, 16], zeros behind the last
 */
template <typename Pack>
void multiply(const Product& p, Pack&& pack) {
  const int64_t slices = std::max<int64_t>(1, (p.in + kInputsMax - 1) / kInputsMax);
  const int64_t inputs_at_once = (p.in + slices - 1) / slices;
  const int64_t tiles = (p.rows + kTileRows - 1) / kTileRows;
  const int64_t columns_at_once = std::min(kColumnsMax, (p.out + kTileColumns - 1) / kTileColumns * kTileColumns);
  static thread_local Buffers own;
  // The caller's, also on other threads.
  float* const packed_rows = own.rows.of(tiles * kTileRows * inputs_at_once);
  float* const narrow = own.narrow.of(tiles * kTileRows * p.rank);
  float* const packed = own.panels.of(columns_at_once * inputs_at_once);
  float* const update = own.update_panels.of(columns_at_once * p.rank);
  for (int64_t first_column = 0; first_column < p.out; first_column += columns_at_once) {
    const int64_t columns = std::min(columns_at_once, p.out - first_column);
    const int64_t panels = (columns + kTileColumns - 1) / kTileColumns;
    for (int64_t begin = 0; begin < p.in; begin += inputs_at_once) {
      const int64_t inputs = std::min(inputs_at_once, p.in - begin);
      const bool is_last = begin + inputs == p.in;
      const int64_t rank = is_last ? p.rank : 0;
      parallel_ranges(panels + tiles, 4, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < std::min(last, panels); ++i) {
          const int64_t column = first_column + i * kTileColumns;
          pack(column, begin, begin + inputs, packed + i * inputs * kTileColumns);
          if (rank > 0) pack_update(p, column, update + i * rank * kTileColumns);
        }
        for (int64_t i = std::max(first, panels); i < last; ++i) {
          const int64_t row = (i - panels) * kTileRows;
          pack_rows(p.x + row * p.in + begin, p.in, p.rows - row, inputs, packed_rows + row * inputs);
          if (rank > 0) pack_rows(p.narrow + row * rank, rank, p.rows - row, rank, narrow + row * rank);
        }
      });
      multiply_slice(p, {inputs, rank, first_column, columns, packed_rows, narrow, packed, update, begin == 0, is_last});
    }
  }
}

}  // namespace gemm
}  // namespace tunefleet
