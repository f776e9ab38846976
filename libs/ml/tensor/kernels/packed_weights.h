#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernel.h"
#include "nibble_codes.h"
#include "vectors.h"

namespace tunefleet {

/** Scales of blocks of weights, themselves quantised or not: see ops/linear/quantised-weights.ts. */
class BlockScales {
 public:
  explicit BlockScales(const View& values) : values_(values.floats()), count_(values.count()) {}
  BlockScales(const View& codes, const View& map, const View& maxima, float offset, int64_t block_size)
      : codes_(codes.data<uint8_t>()), map_(map.floats()), maxima_(maxima.floats()), offset_(offset), block_size_(block_size), count_(codes.count()) {
    require(map.count() == 256 && block_size > 0 && maxima.count() * block_size >= codes.count(), "quantised scales want a map of 256 and a maximum per block");
  }

  int64_t count() const { return count_; }
  float operator[](int64_t block) const {
    if (!codes_) return values_[block];
    // Rounded before the sum, as everywhere else: the compiler must not fuse the two.
    const volatile float product = map_[codes_[block]] * maxima_[block / block_size_];
    return product + offset_;
  }

 private:
  const float* values_ = nullptr;
  const uint8_t* codes_ = nullptr;
  const float* map_ = nullptr;
  const float* maxima_ = nullptr;
  float offset_ = 0;
  int64_t block_size_ = 1;
  int64_t count_;
};

/** Bytes of packed weights: those of the next rows are fetched while these are multiplied. */
constexpr int64_t kReadAhead = 1024;

/** Two weights per byte, by a table of pairs. */
class PackedWeights {
 public:
  PackedWeights(const uint8_t* packed, const float* table, const BlockScales& scales, int64_t block_size) : packed_(packed), table_(table), codes_(table), scales_(scales), block_size_(block_size) {}

  /** Weights `begin` to `end`, counted from the first row's first; both even. */
  void write(int64_t begin, int64_t end, float* to) const {
    int64_t block = begin / block_size_;
    for (int64_t at = begin; at < end; ++block) {
      const int64_t stop = std::min(end, (block + 1) * block_size_);
      const float scale = scales_[block];
      for (; codes_.are_nibbles() && at + 2 * kLanes <= stop; at += 2 * kLanes, to += 2 * kLanes) {
        __builtin_prefetch(packed_ + at / 2 + kReadAhead);
        f32x8 low, high;
        codes_.sixteen(packed_ + at / 2, low, high);
        store(to, low * scale);
        store(to + kLanes, high * scale);
      }
      for (; at < stop; at += 2, to += 2) {
        to[0] = table_[2 * packed_[at / 2]] * scale;
        to[1] = table_[2 * packed_[at / 2] + 1] * scale;
      }
    }
  }

 private:
  const uint8_t* const packed_;
  const float* const table_;  // [256, 2]
  const NibbleCodes codes_;
  const BlockScales& scales_;
  const int64_t block_size_;
};

/** How the inputs of an op, from `first` on, make up packed weights. */
class Quantisation {
 public:
  /** @param offset attribute of the offset of its scales, the one thing that matrices of one kind and size need not share */
  explicit Quantisation(Attributes& attributes, const char* offset = "scale_offset")
      : out(attributes.integer("out")),
        block_size_(attributes.integer("block_size")),
        scale_block_size_(attributes.integer("scale_block_size")),
        scale_offset_(attributes.number(offset)),
        scale_parts_(attributes.integer("S")),
        code_parts_(attributes.integer("C")) {}

  /** Inputs that the weights take. */
  int inputs() const { return static_cast<int>(2 + scale_parts_ + code_parts_); }

  /** Hands the weights [out, in] to `body`, which borrows them. */
  template <typename Body>
  void with(Call& call, int first, int64_t in, Body&& body) const {
    const View packed = call.input(first);
    const View table = call.input(first + 1);
    require(in % 2 == 0 && table.count() == 512, "4-bit weights want an even number of inputs and a table of pairs");
    require(packed.count() * 2 >= out * in, "two weights per byte");
    std::vector<View> parts;
    for (int index = first + 2; index < first + inputs(); ++index) parts.push_back(call.input(index));
    const BlockScales scales = code_parts_ > 0 ? BlockScales(parts.at(2), parts.at(0), parts.at(1), scale_offset_, scale_block_size_) : BlockScales(parts.at(0));
    require(block_size_ > 0 && block_size_ % 2 == 0 && scales.count() * block_size_ >= out * in, "one scale per block of weights");
    body(PackedWeights(packed.data<uint8_t>(), table.floats(), scales, block_size_));
  }

  const int64_t out;

 private:
  const int64_t block_size_;
  const int64_t scale_block_size_;
  const float scale_offset_;
  const int64_t scale_parts_;
  const int64_t code_parts_;
};

}  // namespace tunefleet
