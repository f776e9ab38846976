#pragma once

#include <algorithm>
#include <cstdint>

#include "panels.h"
#include "parallel.h"
#include "vectors.h"

namespace tunefleet {

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

/** Inputs that are summed at a time: a group of as many stays in the first-level cache while it meets the panels. */
constexpr int64_t kInputsMax = 576;
/** Panels that a thread makes at a time; they stay in its second-level cache. */
constexpr int64_t kPanelsMax = 8;
/** Rows whose groups are made at a time. */
constexpr int64_t kRowsMax = 1536;
/** Groups that are worth handing to another thread. */
constexpr int64_t kGroupsPerChunk = 4;
/** Pieces of work that there are at least; where there are fewer panels, rows are cut, too. */
constexpr int64_t kPiecesMin = 16;

/** Equal pieces of a whole, none above `most` nor, but the only one, empty. */
struct Pieces {
  Pieces(int64_t whole, int64_t most) : size(std::max<int64_t>(1, divided(whole, std::max<int64_t>(1, divided(whole, most))))), count(std::max<int64_t>(1, divided(whole, size))) {}
  int64_t size;
  int64_t count;

 private:
  static int64_t divided(int64_t whole, int64_t by) { return (whole + by - 1) / by; }
};

/** Inputs `begin` to `end`, and with the last of them the low-rank update, as if there were `rank` more. */
struct Slice {
  int64_t begin;
  int64_t end;
  int64_t rank;
  bool is_first;
  bool is_last;
  int64_t inputs() const { return end - begin; }
  int64_t steps() const { return inputs() + rank; }
};

/** A sum, what was there before and what is added, to y. */
template <typename Load, typename Store>
TUNEFLEET_INLINE void write(const Product& p, const Slice& s, int64_t at, int64_t column, f32x8 value, Load&& load_some_of, Store&& store_some_of) {
  if (!s.is_first) value += load_some_of(p.y + at);
  if (s.is_last && p.bias) value += load_some_of(p.bias + column);
  if (s.is_last && p.residual) value += load_some_of(p.residual + at);
  store_some_of(p.y + at, value);
}

/** @param group [steps, 6]   @param panel [steps, 16]   @param next what is fetched meanwhile */
template <int Rows>
void finish_tile(const Product& p, const Slice& s, const float* group, int64_t row, const float* panel, int64_t column, const float* next) {
  f32x8 sums[Rows][2];
  clear(sums);
  // Rows of y lie far apart, so nobody else would fetch them in time.
  TUNEFLEET_UNROLL
  for (int r = 0; r < Rows; ++r) __builtin_prefetch(p.y + (row + r) * p.out + column, 1);
  if (s.is_last && p.residual) {
    TUNEFLEET_UNROLL
    for (int r = 0; r < Rows; ++r) __builtin_prefetch(p.residual + (row + r) * p.out + column);
  }
  sum_products<Rows>(group, 1, kGroup, panel, s.steps(), sums, next);
  const int64_t width = std::min<int64_t>(kPanel, p.out - column);
  TUNEFLEET_UNROLL
  for (int r = 0; r < Rows; ++r) {
    const int64_t at = (row + r) * p.out + column;
    if (width == kPanel) {
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

/**
 * y = x w + bias + narrow update + residual, for many rows. Blocked as in Goto and van de Geijn 2008, Anatomy of high-performance matrix multiplication, with the factors'
 * roles exchanged: threads share the groups of rows, and each makes the panels of its own columns. What is shared is taken to lie in memory rather than in a cache,
 * and fetched a group ahead. Each result is summed in an order that depends on the number of inputs alone.
 */
template <typename Pack>
class Multiplication {
 public:
  Multiplication(const Product& p, const Pack& pack) : p_(p), pack_(pack), slices_(p.in, kInputsMax), row_blocks_(groups_of(p.rows), kRowsMax / kGroup) {}

  void run() const {
    static thread_local Scratch own;
    // The caller's, also on other threads.
    float* const groups = own.of(row_blocks_.size * kGroup * (slices_.size + p_.rank));
    for (int64_t row = 0; row < p_.rows; row += row_blocks_.size * kGroup) {
      for (int64_t slice = 0; slice < slices_.count; ++slice) multiply_block({row, std::min(p_.rows, row + row_blocks_.size * kGroup), groups}, slice_at(slice));
    }
  }

 private:
  /** Rows whose groups are there at the same time. */
  struct Block {
    int64_t first_row;
    int64_t last_row;
    float* memory;
    int64_t groups() const { return groups_of(last_row - first_row); }
    int64_t row_of(int64_t group) const { return first_row + group * kGroup; }
    float* group(const Slice& s, int64_t index) const { return memory + index * s.steps() * kGroup; }
  };

  Slice slice_at(int64_t index) const {
    const bool is_last = index + 1 == slices_.count;
    return {index * slices_.size, std::min(p_.in, (index + 1) * slices_.size), is_last ? p_.rank : 0, index == 0, is_last};
  }

  void multiply_block(const Block& block, const Slice& s) const {
    const int64_t panels = panels_of(p_.out);
    const Pieces parts(block.groups(), std::max(kGroupsPerChunk, block.groups() * panels / kPiecesMin));
    parallel_ranges(block.groups(), kGroupsPerChunk, [&](int64_t begin, int64_t end) {
      for (int64_t group = begin; group < end; ++group) pack_rows(s, block.row_of(group), block.group(s, group));
    });
    parallel_ranges(panels * parts.count, 1, [&](int64_t begin, int64_t end) {
      while (begin < end) {
        const int64_t first_panel = begin % panels;
        const int64_t last_panel = std::min(panels, first_panel + end - begin);
        const int64_t first_group = begin / panels * parts.size;
        multiply_panels(block, s, first_group, std::min(block.groups(), first_group + parts.size), first_panel, last_panel);
        begin += last_panel - first_panel;
      }
    });
  }

  void multiply_panels(const Block& block, const Slice& s, int64_t first_group, int64_t last_group, int64_t first_panel, int64_t last_panel) const {
    static thread_local Scratch own;
    const Pieces at_once(last_panel - first_panel, kPanelsMax);
    const int64_t panel_size = s.steps() * kPanel;
    float* const panels = own.of(at_once.size * panel_size);
    for (int64_t first = first_panel; first < last_panel; first += at_once.size) {
      const int64_t last = std::min(last_panel, first + at_once.size);
      pack_columns(s, first * kPanel, std::min(p_.out, last * kPanel), panels);
      for (int64_t index = first_group; index < last_group; ++index) {
        const float* const group = block.group(s, index);
        // Every panel fetches a part of the next group.
        const float* const next = group + s.steps() * kGroup;
        const int64_t part = s.steps() * kGroup / (last - first);
        with_rows<kGroup>(p_.rows - block.row_of(index), [&](auto rows) {
          for (int64_t i = 0; i < last - first; ++i) finish_tile<rows()>(p_, s, group, block.row_of(index), panels + i * panel_size, (first + i) * kPanel, next + i * part);
        });
      }
    }
  }

  /** The group that begins with a row. */
  void pack_rows(const Slice& s, int64_t row, float* to) const {
    pack_group(p_.x + row * p_.in + s.begin, p_.in, s.inputs(), p_.rows - row, to);
    if (s.rank > 0) pack_group(p_.narrow + row * p_.rank, p_.rank, p_.rank, p_.rows - row, to + s.inputs() * kGroup);
  }

  void pack_columns(const Slice& s, int64_t first, int64_t last, float* panels) const {
    pack_(s, first, last, panels);
    if (s.rank > 0) pack_panels(p_.update + first, p_.out, p_.rank, last - first, 1.0f, s.steps() * kPanel, panels + s.inputs() * kPanel);
  }

  const Product& p_;
  const Pack& pack_;
  const Pieces slices_;
  const Pieces row_blocks_;  // in groups
};

/** @param pack called with (slice, first column, last column, to) writes the slice's inputs of these columns as panels of `steps` */
template <typename Pack>
void multiply(const Product& p, const Pack& pack) {
  Multiplication<Pack>(p, pack).run();
}

}  // namespace gemm
}  // namespace tunefleet
