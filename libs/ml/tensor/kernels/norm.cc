#include "norm.h"

#include <algorithm>

#include "kernel.h"
#include "ops.h"
#include "parallel.h"
#include "vectors.h"

namespace tunefleet {
namespace {

/** Elements that are worth handing to another thread. */
constexpr int64_t kElementsPerChunk = 1 << 14;

template <typename Body>
void rows_of(const View& x, Body&& body) {
  const int64_t width = x.dim(-1);
  parallel_ranges(x.count() / width, std::max<int64_t>(1, kElementsPerChunk / width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) body(row, width);
  });
}

Shape inverse_shape(const View& x) {
  Shape shape = x.shape();
  shape.back() = 1;
  return shape;
}

/** The norm of every row, and its inverse root. */
class RmsNorm {
 public:
  explicit RmsNorm(Attributes& attributes) : epsilon_(attributes.number("epsilon")) {}

  void operator()(Call& call) const {
    const View x = call.input(0);
    const View weight = call.input(1);
    require(x.rank() > 0 && weight.shape() == Shape{x.dim(-1)}, "a norm has one weight per channel");
    const View y = call.output(0, x.shape());
    const View inverse = call.output(1, inverse_shape(x));
    rows_of(x, [&](int64_t row, int64_t width) {
      inverse.floats()[row] = rms_norm(x.floats() + row * width, weight.floats(), epsilon_, width, y.floats() + row * width);
    });
  }

 private:
  const float epsilon_;
};

/** dx = (w g - n mean(w g n)) * inverse, with n = x * inverse. */
class RmsNormGradient {
 public:
  explicit RmsNormGradient(Attributes&) {}

  void operator()(Call& call) const {
    const View g = call.input(0);
    const View x = call.input(1);
    const View weight = call.input(2);
    const View inverse = call.input(3);
    require(x.rank() > 0 && g.shape() == x.shape() && weight.shape() == Shape{x.dim(-1)} && inverse.shape() == inverse_shape(x), "the gradient of a norm wants what its forward pass had and gave");
    const View dx = call.output(0, x.shape());
    rows_of(x, [&](int64_t row, int64_t width) {
      const float* gradient = g.floats() + row * width;
      const float* from = x.floats() + row * width;
      float* to = dx.floats() + row * width;
      const float factor = inverse.floats()[row];
      const float products = row_sum(width, [&](int64_t at, int count) { return load_up_to(gradient + at, count) * load_up_to(weight.floats() + at, count) * (load_up_to(from + at, count) * factor); });
      const float mean = products / width;
      for_each_vector(width, [&](int64_t at, int count) {
        const f32x8 scaled = load_up_to(gradient + at, count) * load_up_to(weight.floats() + at, count);
        store_up_to(to + at, (scaled - load_up_to(from + at, count) * factor * mean) * factor, count);
      });
    });
  }
};

}  // namespace

std::vector<OpDefinition> norm_ops() {
  return {
      define_op<RmsNorm>("TunefleetRmsNorm", {"epsilon: float"}, {"x: float", "weight: float"}, {"y: float", "inverse: float"}),
      define_op<RmsNormGradient>("TunefleetRmsNormGradient", {}, {"g: float", "x: float", "weight: float", "inverse: float"}, {"dx: float"}),
  };
}

}  // namespace tunefleet
