#include <algorithm>

#include "gemm.h"
#include "kernel.h"
#include "nibble_codes.h"
#include "ops.h"
#include "parallel.h"
#include "vectors.h"

namespace tunefleet {
namespace {

/**
 * Rows and outputs whose dot products are summed side by side: with the vectors they are made of as many as there are registers. A single row meets more
 * outputs, so that as much is under way at once.
 */
constexpr int kRows = 4;
constexpr int kOutputs = 3;
constexpr int kOutputsOfOneRow = 4;
/** Weights that are worth handing to another thread. */
constexpr int64_t kWeightsPerChunk = 1 << 14;
/** Rows that meet a group of outputs while both are in the cache. */
constexpr int64_t kRowsPerBlock = 64;

/** sums[r][o] = x_r . w_o, each summed in eight lanes from the first element to the last, whatever else is computed beside it. */
template <int Rows, int Outputs, typename Weight>
inline void dots(const float* x, const Weight* w, int64_t size, float (&sums)[Rows][Outputs]) {
  f32x8 lanes[Rows][Outputs];
  TUNEFLEET_UNROLL
  for (int r = 0; r < Rows; ++r) {
    TUNEFLEET_UNROLL
    for (int o = 0; o < Outputs; ++o) lanes[r][o] = f32x8{};
  }
  int64_t at = 0;
  for (; at + kLanes <= size; at += kLanes) {
    f32x8 weights[Outputs];
    for (int o = 0; o < Outputs; ++o) {
      weights[o] = load(w + o * size + at);
      // A row is too short for the processor to see that the next ones follow.
      if (Rows == 1) __builtin_prefetch(w + (o + Outputs) * size + at);
    }
    for (int r = 0; r < Rows; ++r) {
      const f32x8 inputs = load(x + r * size + at);
      for (int o = 0; o < Outputs; ++o) lanes[r][o] += inputs * weights[o];
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int o = 0; o < Outputs; ++o) {
      float total = sum(lanes[r][o]);
      for (int64_t i = at; i < size; ++i) total += x[r * size + i] * widen(w[o * size + i]);
      sums[r][o] = total;
    }
  }
}

template <int Rows, int Outputs, typename Weight>
inline void finish_block(const Product& p, const Weight* w, int64_t row, int64_t output) {
  float sums[Rows][Outputs];
  dots(p.x + row * p.in, w, p.in, sums);
  for (int r = 0; r < Rows; ++r) {
    for (int o = 0; o < Outputs; ++o) {
      const int64_t at = (row + r) * p.out + output + o;
      float value = sums[r][o];
      if (p.bias) value += p.bias[output + o];
      for (int64_t i = 0; i < p.rank; ++i) value += p.narrow[(row + r) * p.rank + i] * p.update[i * p.out + output + o];
      if (p.residual) value += p.residual[at];
      p.y[at] = value;
    }
  }
}

/** Some rows times the weights of some outputs, which lie one after the other. */
template <int Outputs, typename Weight>
void some_rows(const Product& p, const Weight* w, int64_t row, int64_t last_row, int64_t output) {
  for (; row + kRows <= last_row; row += kRows) finish_block<kRows, Outputs>(p, w, row, output);
  for (; row < last_row; ++row) finish_block<1, Outputs>(p, w, row, output);
}

/**
 * Block by block of rows, so that a few outputs of many rows read each row once.
 * @param Source called with (output, count, scratch) gives the weights of some outputs, in place or written to scratch
 */
template <int Outputs, typename Source>
void multiply_by(const Product& p, Source&& weights_of) {
  const int64_t groups = (p.out + Outputs - 1) / Outputs;
  const int64_t blocks = (p.rows + kRowsPerBlock - 1) / kRowsPerBlock;
  parallel_ranges(blocks * groups, std::max<int64_t>(1, kWeightsPerChunk / (Outputs * p.in)), [&](int64_t begin, int64_t end) {
    static thread_local Scratch own;
    float* const scratch = own.of(Outputs * p.in);
    for (int64_t at = begin; at < end; ++at) {
      const int64_t row = at / groups * kRowsPerBlock;
      const int64_t last_row = std::min(p.rows, row + kRowsPerBlock);
      const int64_t output = at % groups * Outputs;
      const int64_t count = std::min<int64_t>(Outputs, p.out - output);
      const auto* w = weights_of(output, count, scratch);
      if (count == Outputs) some_rows<Outputs>(p, w, row, last_row, output);
      else for (int64_t o = 0; o < count; ++o) some_rows<1>(p, w + o * p.in, row, last_row, output + o);
    }
  });
}

template <typename Source>
void multiply(const Product& p, Source&& weights_of) {
  if (p.rows == 1) multiply_by<kOutputsOfOneRow>(p, weights_of);
  else multiply_by<kOutputs>(p, weights_of);
}

template <typename Weight>
void multiply_plain(const Product& p, const Weight* weights) {
  multiply(p, [&](int64_t output, int64_t, float*) { return weights + output * p.in; });
}

/** What is added to a product, as inputs of an op: each is there or not. */
class Additions {
 public:
  explicit Additions(Attributes& attributes) : biases_(attributes.integer("B")), residuals_(attributes.integer("R")), updates_(attributes.integer("U")) {}

  /** Runs body(product) with a product of x [rows, in] and [out, in] that writes output 0. @param first of their inputs */
  template <typename Body>
  void with(Call& call, const View& x, int64_t out, int first, Body&& body) const {
    const Shape shape{x.dim(0), out};
    std::vector<View> views;
    for (int index = first; index < first + biases_ + residuals_ + updates_; ++index) views.push_back(call.input(index));
    const View* next = views.data();
    const View* bias = biases_ > 0 ? next++ : nullptr;
    const View* residual = residuals_ > 0 ? next++ : nullptr;
    const View* narrow = updates_ > 0 ? next++ : nullptr;
    const View* update = updates_ > 0 ? next++ : nullptr;
    if (bias) require(bias->shape() == Shape{out}, "the bias has one number per output");
    if (residual) require(residual->shape() == shape, "the residual has the shape of the output");
    if (update) require(narrow->rank() == 2 && narrow->dim(0) == x.dim(0) && update->shape() == Shape{narrow->dim(1), out}, "a low-rank update wants [rows, rank] and [rank, out]");
    const View y = call.output(0, shape);
    body(Product{x.floats(), x.dim(0), x.dim(1), out, bias ? bias->floats() : nullptr, residual ? residual->floats() : nullptr, narrow ? narrow->floats() : nullptr,
                 update ? update->floats() : nullptr, update ? update->dim(0) : 0, y.floats()});
  }

  static constexpr const char* kAttributes[] = {"B: int >= 0", "R: int >= 0", "U: int >= 0"};
  static constexpr const char* kInputs[] = {"bias: B * float", "residual: R * float", "update: U * float"};

 private:
  const int64_t biases_;
  const int64_t residuals_;
  const int64_t updates_;
};

/** The panels of a product with [out, in], see gemm::multiply. */
template <typename Weight>
auto panels_of(const Weight* weights, int64_t in, int64_t out) {
  return [=](int64_t column, int64_t begin, int64_t end, float* to) { pack_turned_panel(weights + column * in + begin, in, end - begin, out - column, 1.0f, to); };
}

/** The panels of a product with [in, out]. */
template <typename Weight>
auto panels_across(const Weight* weights, int64_t out) {
  return [=](int64_t column, int64_t begin, int64_t end, float* to) { pack_panel(weights + begin * out + column, out, end - begin, out - column, 1.0f, to); };
}

/** x Wᵀ or, turned, x W, of many rows, and what is added. */
class ManyRows {
 public:
  explicit ManyRows(Attributes& attributes) : turned_(attributes.integer("turned") != 0), additions_(attributes) {}

  void operator()(Call& call) const {
    const View x = call.input(0);
    const View w = call.input(1);
    require(x.rank() == 2 && w.rank() == 2 && x.dim(1) == w.dim(turned_ ? 0 : 1), "a product wants [rows, in] and [out, in], or [in, out] if turned");
    additions_.with(call, x, w.dim(turned_ ? 1 : 0), 2, [&](const Product& p) {
      if (w.dtype() == TF_FLOAT) multiply_weights(p, w.floats());
      else multiply_weights(p, w.data<uint16_t>());
    });
  }

 private:
  template <typename Weight>
  void multiply_weights(const Product& p, const Weight* weights) const {
    if (turned_) gemm::multiply(p, panels_across(weights, p.out));
    else gemm::multiply(p, panels_of(weights, p.in, p.out));
  }

  const bool turned_;
  const Additions additions_;
};

class Linear {
 public:
  explicit Linear(Attributes& attributes) : additions_(attributes) {}

  void operator()(Call& call) const {
    const View x = call.input(0);
    const View w = call.input(1);
    require(x.rank() == 2 && w.rank() == 2 && x.dim(1) == w.dim(1), "a linear map wants [rows, in] and [out, in]");
    additions_.with(call, x, w.dim(0), 2, [&](const Product& p) {
      if (w.dtype() == TF_FLOAT) multiply_plain(p, w.floats());
      else multiply_plain(p, w.data<uint16_t>());
    });
  }

 private:
  const Additions additions_;
};

/** Scales of blocks of weights, themselves quantised or not: see ops/linear/quantised-weights.ts. */
class BlockScales {
 public:
  BlockScales(const View& values) : values_(values.floats()), count_(values.count()) {}
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
  explicit Quantisation(Attributes& attributes)
      : out(attributes.integer("out")),
        block_size_(attributes.integer("block_size")),
        scale_block_size_(attributes.integer("scale_block_size")),
        scale_offset_(attributes.number("scale_offset")),
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

class LinearFourBit {
 public:
  explicit LinearFourBit(Attributes& attributes) : quantisation_(attributes), additions_(attributes) {}

  void operator()(Call& call) const {
    const View x = call.input(0);
    require(x.rank() == 2, "a linear map wants [rows, in]");
    quantisation_.with(call, 1, x.dim(1), [&](const PackedWeights& weights) {
      additions_.with(call, x, quantisation_.out, 1 + quantisation_.inputs(), [&](const Product& p) {
        multiply(p, [&](int64_t output, int64_t count, float* scratch) {
          weights.write(output * p.in, (output + count) * p.in, scratch);
          return static_cast<const float*>(scratch);
        });
      });
    });
  }

 private:
  const Quantisation quantisation_;
  const Additions additions_;
};

class Dequantise {
 public:
  explicit Dequantise(Attributes& attributes) : quantisation_(attributes), in_(attributes.integer("in")) {}

  void operator()(Call& call) const {
    const View y = call.output(0, {quantisation_.out, in_});
    quantisation_.with(call, 0, in_, [&](const PackedWeights& weights) {
      parallel_ranges(quantisation_.out, std::max<int64_t>(1, kWeightsPerChunk / in_), [&](int64_t begin, int64_t end) { weights.write(begin * in_, end * in_, y.floats() + begin * in_); });
    });
  }

 private:
  const Quantisation quantisation_;
  const int64_t in_;
};

std::vector<const char*> joined(const std::vector<std::vector<const char*>>& lists) {
  std::vector<const char*> all;
  for (const auto& list : lists) all.insert(all.end(), list.begin(), list.end());
  return all;
}

}  // namespace

std::vector<OpDefinition> linear_ops() {
  const std::vector<const char*> quantisation{"out: int", "block_size: int", "scale_block_size: int", "scale_offset: float", "S: int >= 1", "C: int >= 0"};
  const std::vector<const char*> packed{"packed: uint8", "table: float", "scales: S * float", "scale_codes: C * uint8"};
  const std::vector<const char*> flags(std::begin(Additions::kAttributes), std::end(Additions::kAttributes));
  const std::vector<const char*> additions(std::begin(Additions::kInputs), std::end(Additions::kInputs));
  return {
      define_op<Linear>("TunefleetLinear", joined({{"T: {float, bfloat16}"}, flags}), joined({{"x: float", "weight: T"}, additions}), {"y: float"}),
      define_op<ManyRows>("TunefleetManyRows", joined({{"T: {float, bfloat16}", "turned: int"}, flags}), joined({{"x: float", "weight: T"}, additions}), {"y: float"}),
      define_op<LinearFourBit>("TunefleetLinearFourBit", joined({quantisation, flags}), joined({{"x: float"}, packed, additions}), {"y: float"}),
      define_op<Dequantise>("TunefleetDequantise", joined({{"in: int"}, quantisation}), packed, {"y: float"}),
  };
}

}  // namespace tunefleet
