#include <algorithm>

#include "kernel.h"
#include "ops.h"
#include "parallel.h"
#include "vectors.h"

namespace tunefleet {
namespace {

/** Outputs whose weights are read side by side, and rows they are multiplied with at once: twelve sums, which registers hold. */
constexpr int kOutputs = 4;
constexpr int kRows = 3;
/** Weights that are worth handing to another thread. */
constexpr int64_t kWeightsPerChunk = 1 << 14;

/** sums[r][o] = x_r . w_o, each summed in eight lanes from the first element to the last, whatever else is computed beside it. */
template <int Rows, int Outputs, typename Weight>
inline void dots(const float* x, const Weight* w, int64_t size, float (&sums)[kRows][kOutputs]) {
  f32x8 lanes[Rows][Outputs] = {};
  int64_t at = 0;
  for (; at + kLanes <= size; at += kLanes) {
    f32x8 weights[Outputs];
    for (int o = 0; o < Outputs; ++o) {
      weights[o] = load(w + o * size + at);
      // A row is too short for the processor to see that the next one follows.
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

/** What a product is made of. Optional parts are null. */
struct Product {
  const float* x;
  int64_t rows;
  int64_t in;
  int64_t out;
  const float* bias;      // [out]
  const float* residual;  // [rows, out]
  float* y;
};

template <int Rows, int Outputs, typename Weight>
inline void finish_block(const Product& p, const Weight* w, int64_t row, int64_t output) {
  float sums[kRows][kOutputs];
  dots<Rows, Outputs>(p.x + row * p.in, w, p.in, sums);
  for (int r = 0; r < Rows; ++r) {
    for (int o = 0; o < Outputs; ++o) {
      const int64_t at = (row + r) * p.out + output + o;
      float value = sums[r][o];
      if (p.bias) value += p.bias[output + o];
      if (p.residual) value += p.residual[at];
      p.y[at] = value;
    }
  }
}

/** All rows times the weights of some outputs, which lie one after the other. */
template <int Outputs, typename Weight>
void all_rows(const Product& p, const Weight* w, int64_t output) {
  int64_t row = 0;
  for (; row + kRows <= p.rows; row += kRows) finish_block<kRows, Outputs>(p, w, row, output);
  for (; row < p.rows; ++row) finish_block<1, Outputs>(p, w, row, output);
}

/** @param Source called with (output, count, scratch) gives the f32 weights of some outputs, in place or written to scratch */
template <typename Source>
void multiply(const Product& p, Source&& weights_of) {
  const int64_t groups = (p.out + kOutputs - 1) / kOutputs;
  parallel_ranges(groups, std::max<int64_t>(1, kWeightsPerChunk / (kOutputs * p.in)), [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> scratch;
    scratch.resize(kOutputs * p.in);
    for (int64_t group = begin; group < end; ++group) {
      const int64_t output = group * kOutputs;
      const int64_t count = std::min<int64_t>(kOutputs, p.out - output);
      const auto* w = weights_of(output, count, scratch.data());
      if (count == kOutputs) all_rows<kOutputs>(p, w, output);
      else for (int64_t o = 0; o < count; ++o) all_rows<1>(p, w + o * p.in, output + o);
    }
  });
}

Product product_of(const View& x, int64_t out, const std::vector<View>& extras, int64_t bias_count, const View& y) {
  const float* bias = bias_count > 0 ? extras.front().floats() : nullptr;
  const float* residual = static_cast<int64_t>(extras.size()) > bias_count ? extras.back().floats() : nullptr;
  return {x.floats(), x.dim(0), x.dim(1), out, bias, residual, y.floats()};
}

/** Bias and residual, checked. */
std::vector<View> extras_of(Call& call, int first, int64_t bias_count, int64_t residual_count, const Shape& output) {
  std::vector<View> extras;
  for (int index = first; index < first + bias_count + residual_count; ++index) extras.push_back(call.input(index));
  if (bias_count > 0) require(extras.front().shape() == Shape{output[1]}, "the bias has one number per output");
  if (residual_count > 0) require(extras.back().shape() == output, "the residual has the shape of the output");
  return extras;
}

class Linear {
 public:
  explicit Linear(Attributes& attributes) : biases_(attributes.integer("B")), residuals_(attributes.integer("R")) {}

  void operator()(Call& call) const {
    const View x = call.input(0);
    const View w = call.input(1);
    require(x.rank() == 2 && w.rank() == 2 && x.dim(1) == w.dim(1), "a linear map wants [rows, in] and [out, in]");
    const Shape shape{x.dim(0), w.dim(0)};
    const std::vector<View> extras = extras_of(call, 2, biases_, residuals_, shape);
    const View y = call.output(0, shape);
    const Product p = product_of(x, w.dim(0), extras, biases_, y);
    if (w.dtype() == TF_FLOAT) {
      const float* weights = w.floats();
      multiply(p, [&](int64_t output, int64_t, float*) { return weights + output * p.in; });
      return;
    }
    const uint16_t* weights = w.data<uint16_t>();
    if (p.rows == 1) {
      multiply(p, [&](int64_t output, int64_t, float*) { return weights + output * p.in; });
      return;
    }
    multiply(p, [&](int64_t output, int64_t count, float* scratch) {
      const uint16_t* from = weights + output * p.in;
      int64_t i = 0;
      for (; i + kLanes <= count * p.in; i += kLanes) store(scratch + i, load(from + i));
      for (; i < count * p.in; ++i) scratch[i] = widen(from[i]);
      return static_cast<const float*>(scratch);
    });
  }

 private:
  const int64_t biases_;
  const int64_t residuals_;
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

/** Two weights per byte, by a table of pairs. */
struct PackedWeights {
  const uint8_t* packed;
  const float* table;  // [256, 2]
  const BlockScales& scales;
  int64_t block_size;

  /** Weights `begin` to `end`, counted from the first row's first; both even. */
  void write(int64_t begin, int64_t end, float* to) const {
    for (int64_t at = begin; at < end;) {
      const int64_t block = at / block_size;
      const int64_t stop = std::min(end, (block + 1) * block_size);
      const float scale = scales[block];
      for (; at + kLanes <= stop; at += kLanes, to += kLanes) {
        f32x8 weights;
        for (int pair = 0; pair < kLanes / 2; ++pair) std::memcpy(reinterpret_cast<char*>(&weights) + 8 * pair, table + 2 * packed[at / 2 + pair], 8);
        store(to, weights * scale);
      }
      for (; at < stop; at += 2, to += 2) {
        to[0] = table[2 * packed[at / 2]] * scale;
        to[1] = table[2 * packed[at / 2] + 1] * scale;
      }
    }
  }
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
    body(PackedWeights{packed.data<uint8_t>(), table.floats(), scales, block_size_});
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
  explicit LinearFourBit(Attributes& attributes) : quantisation_(attributes), biases_(attributes.integer("B")), residuals_(attributes.integer("R")) {}

  void operator()(Call& call) const {
    const View x = call.input(0);
    require(x.rank() == 2, "a linear map wants [rows, in]");
    const Shape shape{x.dim(0), quantisation_.out};
    const std::vector<View> extras = extras_of(call, 1 + quantisation_.inputs(), biases_, residuals_, shape);
    const View y = call.output(0, shape);
    const Product p = product_of(x, quantisation_.out, extras, biases_, y);
    quantisation_.with(call, 1, p.in, [&](const PackedWeights& weights) {
      multiply(p, [&](int64_t output, int64_t count, float* scratch) {
        weights.write(output * p.in, (output + count) * p.in, scratch);
        return static_cast<const float*>(scratch);
      });
    });
  }

 private:
  const Quantisation quantisation_;
  const int64_t biases_;
  const int64_t residuals_;
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

}  // namespace

std::vector<OpDefinition> linear_ops() {
  return {
      define_op<Linear>("TunefleetLinear", {"T: {float, bfloat16}", "B: int >= 0", "R: int >= 0"}, {"x: float", "weight: T", "bias: B * float", "residual: R * float"}, {"y: float"}),
      define_op<LinearFourBit>("TunefleetLinearFourBit",
                               {"out: int", "block_size: int", "scale_block_size: int", "scale_offset: float", "S: int >= 1", "C: int >= 0", "B: int >= 0", "R: int >= 0"},
                               {"x: float", "packed: uint8", "table: float", "scales: S * float", "scale_codes: C * uint8", "bias: B * float", "residual: R * float"}, {"y: float"}),
      define_op<Dequantise>("TunefleetDequantise",
                            {"out: int", "in: int", "block_size: int", "scale_block_size: int", "scale_offset: float", "S: int >= 1", "C: int >= 0"},
                            {"packed: uint8", "table: float", "scales: S * float", "scale_codes: C * uint8"}, {"y: float"}),
  };
}

}  // namespace tunefleet
