#include "kernel.h"
#include "ops.h"
#include "parallel.h"
#include "vectors.h"

namespace tunefleet {
namespace {

/** Elements that are worth handing to another thread. */
constexpr int64_t kElementsPerChunk = 1 << 13;

template <typename Body>
void elements_of(const View& x, Body&& body) {
  parallel_ranges((x.count() + kLanes - 1) / kLanes, kElementsPerChunk / kLanes, [&](int64_t begin, int64_t end) {
    const int64_t last = std::min(end * kLanes, x.count());
    for_each_vector(last - begin * kLanes, [&](int64_t at, int count) { body(begin * kLanes + at, count); });
  });
}

class Swiglu {
 public:
  explicit Swiglu(Attributes&) {}

  void operator()(Call& call) const {
    const View gate = call.input(0);
    const View up = call.input(1);
    require(gate.shape() == up.shape(), "gate and up have one shape");
    const View y = call.output(0, gate.shape());
    elements_of(gate, [&](int64_t at, int count) {
      store_up_to(y.floats() + at, swiglu(load_up_to(gate.floats() + at, count), load_up_to(up.floats() + at, count)), count);
    });
  }
};

/** silu'(x) = s + x s (1 - s), s = sigmoid(x). */
class SwigluGradient {
 public:
  explicit SwigluGradient(Attributes&) {}

  void operator()(Call& call) const {
    const View g = call.input(0);
    const View gate = call.input(1);
    const View up = call.input(2);
    require(gate.shape() == up.shape() && g.shape() == up.shape(), "gate, up and the gradient have one shape");
    const View dGate = call.output(0, gate.shape());
    const View dUp = call.output(1, gate.shape());
    elements_of(gate, [&](int64_t at, int count) {
      const f32x8 gradient = load_up_to(g.floats() + at, count);
      const f32x8 x = load_up_to(gate.floats() + at, count);
      const f32x8 s = sigmoid(x);
      const f32x8 silu = x * s;
      store_up_to(dUp.floats() + at, gradient * silu, count);
      store_up_to(dGate.floats() + at, gradient * load_up_to(up.floats() + at, count) * (s + silu - silu * s), count);
    });
  }
};

}  // namespace

std::vector<OpDefinition> activation_ops() {
  return {
      define_op<Swiglu>("TunefleetSwiglu", {}, {"gate: float", "up: float"}, {"y: float"}),
      define_op<SwigluGradient>("TunefleetSwigluGradient", {}, {"g: float", "gate: float", "up: float"}, {"d_gate: float", "d_up: float"}),
  };
}

}  // namespace tunefleet
