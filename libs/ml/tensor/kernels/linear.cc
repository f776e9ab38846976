#include <algorithm>

#include "few_rows.h"
#include "gemm.h"
#include "kernel.h"
#include "norm.h"
#include "ops.h"
#include "packed_weights.h"
#include "parallel.h"
#include "vectors.h"

namespace tunefleet {
namespace {

/** A norm before a product, if the op has a weight for it. */
class NormBefore {
 public:
  explicit NormBefore(Attributes& attributes) : norms_(attributes.integer("N")), epsilon_(attributes.number("epsilon")) {}

  /** @param index of its input   @returns x or its norm, which lives until the thread's next call */
  const float* rows(Call& call, const View& x, int index) const {
    if (norms_ == 0) return x.floats();
    const View weight = call.input(index);
    const int64_t width = x.dim(1);
    require(weight.shape() == Shape{width}, "a norm has one weight per channel");
    static thread_local Scratch own;
    float* const rows = own.of(x.count());
    for (int64_t row = 0; row < x.dim(0); ++row) rms_norm(x.floats() + row * width, weight.floats(), epsilon_, width, rows + row * width);
    return rows;
  }

  static constexpr const char* kAttributes[] = {"N: int >= 0", "epsilon: float"};
  static constexpr const char* kInput = "norm: N * float";

 private:
  const int64_t norms_;
  const float epsilon_;
};

/** What is added to a product, as inputs of an op: each is there or not. */
class Additions {
 public:
  explicit Additions(Attributes& attributes) : biases_(attributes.integer("B")), residuals_(attributes.integer("R")), updates_(attributes.integer("U")) {}

  int inputs() const { return static_cast<int>(biases_ + residuals_ + updates_); }

  /** Runs body(product) with a product of x [rows, in] and [out, in] that writes output 0. @param rows what stands in x, or in place of it   @param first of their inputs */
  template <typename Body>
  void with(Call& call, const View& x, const float* rows, int64_t out, int first, Body&& body) const {
    const Shape shape{x.dim(0), out};
    std::vector<View> views;
    for (int index = first; index < first + inputs(); ++index) views.push_back(call.input(index));
    const View* next = views.data();
    const View* bias = biases_ > 0 ? next++ : nullptr;
    const View* residual = residuals_ > 0 ? next++ : nullptr;
    const View* narrow = updates_ > 0 ? next++ : nullptr;
    const View* update = updates_ > 0 ? next++ : nullptr;
    if (bias) require(bias->shape() == Shape{out}, "the bias has one number per output");
    if (residual) require(residual->shape() == shape, "the residual has the shape of the output");
    if (update) require(narrow->rank() == 2 && narrow->dim(0) == x.dim(0) && update->shape() == Shape{narrow->dim(1), out}, "a low-rank update wants [rows, rank] and [rank, out]");
    const View y = call.output(0, shape);
    body(Product{rows, x.dim(0), x.dim(1), out, bias ? bias->floats() : nullptr, residual ? residual->floats() : nullptr, narrow ? narrow->floats() : nullptr,
                 update ? update->floats() : nullptr, update ? update->dim(0) : 0, y.floats()});
  }

  static constexpr const char* kAttributes[] = {"B: int >= 0", "R: int >= 0", "U: int >= 0"};
  static constexpr const char* kInputs[] = {"bias: B * float", "residual: R * float", "update: U * float"};

 private:
  const int64_t biases_;
  const int64_t residuals_;
  const int64_t updates_;
};

/** A product that nothing is added to. */
Product plain_product(const float* rows, const View& x, const View& y) { return {rows, x.dim(0), x.dim(1), y.dim(1), nullptr, nullptr, nullptr, nullptr, 0, y.floats()}; }

/** The panels of a product with [out, in], see gemm::multiply. */
template <typename Weight>
auto panels_of(const Weight* weights, int64_t in) {
  return [=](const gemm::Slice& s, int64_t first, int64_t last, float* to) { pack_turned_panels(weights + first * in + s.begin, in, s.inputs(), last - first, 1.0f, s.steps() * kPanel, to); };
}

/** The panels of a product with [in, out]. */
template <typename Weight>
auto panels_across(const Weight* weights, int64_t out) {
  return [=](const gemm::Slice& s, int64_t first, int64_t last, float* to) { pack_panels(weights + s.begin * out + first, out, s.inputs(), last - first, 1.0f, s.steps() * kPanel, to); };
}

/** x Wᵀ or, turned, x W, of many rows, and what is added. */
class ManyRows {
 public:
  explicit ManyRows(Attributes& attributes) : turned_(attributes.integer("turned") != 0), additions_(attributes) {}

  void operator()(Call& call) const {
    const View x = call.input(0);
    const View w = call.input(1);
    require(x.rank() == 2 && w.rank() == 2 && x.dim(1) == w.dim(turned_ ? 0 : 1), "a product wants [rows, in] and [out, in], or [in, out] if turned");
    additions_.with(call, x, x.floats(), w.dim(turned_ ? 1 : 0), 2, [&](const Product& p) {
      if (w.dtype() == TF_FLOAT) multiply_weights(p, w.floats());
      else multiply_weights(p, w.data<uint16_t>());
    });
  }

 private:
  template <typename Weight>
  void multiply_weights(const Product& p, const Weight* weights) const {
    if (turned_) gemm::multiply(p, panels_across(weights, p.out));
    else gemm::multiply(p, panels_of(weights, p.in));
  }

  const bool turned_;
  const Additions additions_;
};

/** norm(x) Wᵀ of a few rows, and what is added. */
class Linear {
 public:
  explicit Linear(Attributes& attributes) : additions_(attributes), norm_(attributes) {}

  void operator()(Call& call) const {
    const View x = call.input(0);
    const View w = call.input(1);
    require(x.rank() == 2 && w.rank() == 2 && x.dim(1) == w.dim(1), "a linear map wants [rows, in] and [out, in]");
    additions_.with(call, x, norm_.rows(call, x, 2 + additions_.inputs()), w.dim(0), 2, [&](const Product& p) {
      const auto multiply = [&](auto&& weights_of) { few_rows::multiply(p, weights_of); };
      if (w.dtype() == TF_FLOAT) few_rows::with_rows_of(w.floats(), p, multiply);
      else few_rows::with_rows_of(w.data<uint16_t>(), p, multiply);
    });
  }

 private:
  const Additions additions_;
  const NormBefore norm_;
};

/** silu(n Gᵀ) * (n Uᵀ) of a few rows, n = norm(x). */
class GatedLinear {
 public:
  explicit GatedLinear(Attributes& attributes) : norm_(attributes) {}

  void operator()(Call& call) const {
    const View x = call.input(0);
    const View gate = call.input(1);
    const View up = call.input(2);
    require(x.rank() == 2 && gate.rank() == 2 && gate.shape() == up.shape() && x.dim(1) == gate.dim(1), "gated maps want [rows, in] and [out, in] twice");
    const View y = call.output(0, {x.dim(0), gate.dim(0)});
    const Product p = plain_product(norm_.rows(call, x, 3), x, y);
    if (gate.dtype() == TF_FLOAT) multiply(p, gate.floats(), up.floats());
    else multiply(p, gate.data<uint16_t>(), up.data<uint16_t>());
  }

 private:
  template <typename Weight>
  static void multiply(const Product& p, const Weight* gate, const Weight* up) {
    few_rows::with_rows_of(gate, p, [&](auto&& gate_of) { few_rows::with_rows_of(up, p, [&](auto&& up_of) { few_rows::multiply_gated(p, gate_of, up_of); }); });
  }

  const NormBefore norm_;
};

/** Weights of some outputs, dequantised. */
auto rows_of(const PackedWeights& weights, int64_t in) {
  return [&weights, in](int64_t output, int64_t count, float* scratch) {
    weights.write(output * in, (output + count) * in, scratch);
    return static_cast<const float*>(scratch);
  };
}

class LinearFourBit {
 public:
  explicit LinearFourBit(Attributes& attributes) : quantisation_(attributes), additions_(attributes), norm_(attributes) {}

  void operator()(Call& call) const {
    const View x = call.input(0);
    require(x.rank() == 2, "a linear map wants [rows, in]");
    const int first = 1 + quantisation_.inputs();
    const float* const rows = norm_.rows(call, x, first + additions_.inputs());
    quantisation_.with(call, 1, x.dim(1), [&](const PackedWeights& weights) {
      additions_.with(call, x, rows, quantisation_.out, first, [&](const Product& p) { few_rows::multiply(p, rows_of(weights, p.in)); });
    });
  }

 private:
  const Quantisation quantisation_;
  const Additions additions_;
  const NormBefore norm_;
};

class GatedLinearFourBit {
 public:
  explicit GatedLinearFourBit(Attributes& attributes) : gate_(attributes), up_(attributes, "up_scale_offset"), norm_(attributes) {}

  void operator()(Call& call) const {
    const View x = call.input(0);
    require(x.rank() == 2, "gated maps want [rows, in]");
    const int parts = gate_.inputs();
    const View y = call.output(0, {x.dim(0), gate_.out});
    const Product p = plain_product(norm_.rows(call, x, 1 + 2 * parts), x, y);
    gate_.with(call, 1, p.in, [&](const PackedWeights& gate) {
      up_.with(call, 1 + parts, p.in, [&](const PackedWeights& up) { few_rows::multiply_gated(p, rows_of(gate, p.in), rows_of(up, p.in)); });
    });
  }

 private:
  const Quantisation gate_;
  const Quantisation up_;
  const NormBefore norm_;
};

class Dequantise {
 public:
  explicit Dequantise(Attributes& attributes) : quantisation_(attributes), in_(attributes.integer("in")) {}

  void operator()(Call& call) const {
    const View y = call.output(0, {quantisation_.out, in_});
    quantisation_.with(call, 0, in_, [&](const PackedWeights& weights) {
      parallel_ranges(quantisation_.out, std::max<int64_t>(1, few_rows::kWeightsPerChunk / in_), [&](int64_t begin, int64_t end) { weights.write(begin * in_, end * in_, y.floats() + begin * in_); });
    });
  }

 private:
  const Quantisation quantisation_;
  const int64_t in_;
};

typedef std::vector<const char*> Names;

Names joined(std::initializer_list<Names> lists) {
  Names all;
  for (const Names& list : lists) all.insert(all.end(), list.begin(), list.end());
  return all;
}

template <typename Strings>
Names names(const Strings& strings) {
  return Names(std::begin(strings), std::end(strings));
}

}  // namespace

std::vector<OpDefinition> linear_ops() {
  const Names quantisation{"out: int", "block_size: int", "scale_block_size: int", "scale_offset: float", "S: int >= 1", "C: int >= 0"};
  const Names packed{"packed: uint8", "table: float", "scales: S * float", "scale_codes: C * uint8"};
  const Names second{"up_packed: uint8", "up_table: float", "up_scales: S * float", "up_scale_codes: C * uint8"};
  const Names flags = names(Additions::kAttributes), additions = names(Additions::kInputs), norms = names(NormBefore::kAttributes);
  const Names dtype{"T: {float, bfloat16}"}, x{"x: float"}, norm{NormBefore::kInput}, y{"y: float"};
  return {
      define_op<Linear>("TunefleetLinear", joined({dtype, flags, norms}), joined({x, {"weight: T"}, additions, norm}), y),
      define_op<GatedLinear>("TunefleetGatedLinear", joined({dtype, norms}), joined({x, {"gate: T", "up: T"}, norm}), y),
      define_op<ManyRows>("TunefleetManyRows", joined({dtype, {"turned: int"}, flags}), joined({x, {"weight: T"}, additions}), y),
      define_op<LinearFourBit>("TunefleetLinearFourBit", joined({quantisation, flags, norms}), joined({x, packed, additions, norm}), y),
      define_op<GatedLinearFourBit>("TunefleetGatedLinearFourBit", joined({quantisation, {"up_scale_offset: float"}, norms}), joined({x, packed, second, norm}), y),
      define_op<Dequantise>("TunefleetDequantise", joined({{"in: int"}, quantisation}), packed, y),
  };
}

}  // namespace tunefleet
