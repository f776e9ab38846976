#pragma once

#include <cstdint>

#include "kernel.h"
#include "tiles.h"

namespace tunefleet {

/** Which keys a query sees: ranges of i32 [rows or 1, queries or 1, ranges, 2], or all. Start and end of a query's ranges ascend; empty ones may lie between. */
class VisibleKeys {
 public:
  explicit VisibleKeys(int64_t keys) : whole_{0, static_cast<int32_t>(keys)}, ranges_(whole_), count_(1), row_stride_(0), query_stride_(0) {}

  VisibleKeys(const View& ranges, int64_t rows, int64_t queries, int64_t keys) : VisibleKeys(keys) {
    require(ranges.rank() == 4 && ranges.dtype() == TF_INT32 && ranges.dim(3) == 2, "visible keys are i32 [rows, queries, ranges, 2]");
    require((ranges.dim(0) == 1 || ranges.dim(0) == rows) && (ranges.dim(1) == 1 || ranges.dim(1) == queries), "every row and query has its visible keys, or all have the same");
    ranges_ = ranges.data<int32_t>();
    count_ = ranges.dim(2);
    query_stride_ = ranges.dim(1) == 1 ? 0 : count_ * 2;
    row_stride_ = ranges.dim(0) == 1 ? 0 : ranges.dim(1) * count_ * 2;
    for (int64_t at = 0; at < ranges.count(); ++at) require(ranges_[at] >= 0 && ranges_[at] <= keys, "visible keys are keys that there are");
  }
  VisibleKeys(const VisibleKeys&) = delete;

  /** Calls body(start, end) for every part of [from, to) that a query sees. */
  template <typename Body>
  void each(int64_t row, int64_t query, int64_t from, int64_t to, Body&& body) const {
    const int32_t* range = ranges_ + row * row_stride_ + query * query_stride_;
    for (int64_t i = 0; i < count_; ++i, range += 2) {
      const int start = static_cast<int>(std::max<int64_t>(range[0], from));
      const int end = static_cast<int>(std::min<int64_t>(range[1], to));
      if (start < end) body(start, end);
    }
  }

 private:
  int32_t whole_[2];
  const int32_t* ranges_;
  int64_t count_;
  int64_t row_stride_;
  int64_t query_stride_;
};

/** A tile of queries of one row of the batch over a tile of keys; numbers of queries and keys count from the tile's first. */
class TileOfScores {
 public:
  TileOfScores(const VisibleKeys& visible, int64_t row, int64_t query, int queries, int64_t key, int keys) : visible_(visible), row_(row), first_query_(query), first_key_(key), queries_(queries), keys_(keys) {
    for (int i = 0; i < queries; ++i) {
      visible.each(row, query + i, key, key + keys, [&](int start, int end) { seen_[i].include(start - static_cast<int>(key), end - static_cast<int>(key)); });
      if (seen_[i].empty()) continue;
      keys_of_[i / kGroup].include(seen_[i].from, seen_[i].to);
      for (int group = seen_[i].from / kGroup; group * kGroup < seen_[i].to; ++group) queries_of_[group].include(i, i + 1);
      empty_ = false;
    }
  }

  /** Nobody sees a key. */
  bool empty() const { return empty_; }
  int queries() const { return queries_; }
  int keys() const { return keys_; }
  int64_t first_query() const { return first_query_; }
  int64_t first_key() const { return first_key_; }
  /** From the first to the last key that the query sees. */
  const Span& seen_by(int query) const { return seen_[query]; }
  /** Of every group of queries the keys that any of them sees, and of every group of keys the queries that see any of them. */
  const Span* keys_of_groups() const { return keys_of_; }
  const Span* queries_of_groups() const { return queries_of_; }

  /** Sets scores of [from, to) that the query does not see. */
  void fill_unseen(int query, int from, int to, float value, float* scores) const {
    int at = from;
    visible_.each(row_, first_query_ + query, first_key_ + from, first_key_ + to, [&](int start, int end) {
      const int begin = start - static_cast<int>(first_key_);
      if (begin > at) std::fill(scores + at, scores + begin, value);
      at = end - static_cast<int>(first_key_);
    });
    std::fill(scores + at, scores + to, value);
  }

 private:
  const VisibleKeys& visible_;
  const int64_t row_;
  const int64_t first_query_;
  const int64_t first_key_;
  const int queries_;
  const int keys_;
  Span seen_[kTile];
  Span keys_of_[kGroups];
  Span queries_of_[kGroups];
  bool empty_ = true;
};

}  // namespace tunefleet
