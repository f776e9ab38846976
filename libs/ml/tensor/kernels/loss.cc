#include <cmath>

#include "kernel.h"
#include "ops.h"
#include "parallel.h"
#include "vectors.h"

namespace tunefleet {
namespace {

/** -log softmax(logits)[label], its gradient softmax - onehot, and whether no other token is likelier. A row stays in the cache from its first to its last pass. */
class CrossEntropy {
 public:
  explicit CrossEntropy(Attributes&) {}

  void operator()(Call& call) const {
    const View logits = call.input(0);
    const View labels = call.input(1);
    require(logits.rank() == 2 && labels.shape() == Shape{logits.dim(0)}, "cross entropy wants [rows, tokens] and a label per row");
    const int64_t tokens = logits.dim(1);
    const int32_t* label = labels.data<int32_t>();
    for (int64_t row = 0; row < logits.dim(0); ++row) require(label[row] >= 0 && label[row] < tokens, "a label is a token");
    const View losses = call.output(0, {logits.dim(0)});
    const View likeliest = call.output(1, {logits.dim(0)});
    const View gradient = call.output(2, logits.shape());
    parallel_ranges(logits.dim(0), 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const float* from = logits.floats() + row * tokens;
        const float most = most_of(from, tokens);
        const float own = from[label[row]];
        likeliest.floats()[row] = own >= most ? 1.0f : 0.0f;
        losses.floats()[row] = learn(from, tokens, most, label[row], gradient.floats() + row * tokens) - (own - most);
      }
    });
  }

 private:
  static float most_of(const float* logits, int64_t tokens) {
    f32x8 lanes = all(logits[0]);
    for_each_vector(tokens, [&](int64_t at, int count) {
      f32x8 values = load_up_to(logits + at, count);
      for (int lane = count; lane < kLanes; ++lane) values[lane] = logits[0];
      lanes = max(lanes, values);
    });
    return maximum(lanes);
  }

  /** Writes the gradient. @returns log sum exp(logit - most) */
  static float learn(const float* logits, int64_t tokens, float most, int32_t label, float* gradient) {
    const float total = exponentials(logits, tokens, most, gradient);
    const float inverse = 1.0f / total;
    for_each_vector(tokens, [&](int64_t at, int count) { store_up_to(gradient + at, load_up_to(gradient + at, count) * inverse, count); });
    gradient[label] -= 1.0f;
    return std::log(total);
  }
};

}  // namespace

std::vector<OpDefinition> loss_ops() {
  return {define_op<CrossEntropy>("TunefleetCrossEntropy", {}, {"logits: float", "labels: int32"}, {"losses: float", "likeliest: float", "gradient: float"})};
}

}  // namespace tunefleet
