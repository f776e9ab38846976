#include <algorithm>
#include <cmath>

#include "kernel.h"
#include "ops.h"
#include "parallel.h"
#include "vectors.h"

namespace tunefleet {
namespace {

/** Keys that are worth handing to another thread, times their width. */
constexpr int64_t kNumbersPerChunk = 1 << 14;
/** Added to scores of keys that must not be seen: see ops/attention/masks.ts. */
constexpr float kMasked = -1e9f;

/** Cosines and sines of a batch of [batch, time] positions, all rows alike or each with its own. */
class Positions {
 public:
  Positions(const View& cosine, const View& sine, int64_t batch, int64_t time, int64_t width) : cosine_(cosine.floats()), sine_(sine.floats()), time_(time), width_(width), own_(cosine.count() == batch * time * width) {
    require(width % 2 == 0, "the width of a head is even");
    require(cosine.shape() == sine.shape(), "cosines and sines have one shape");
    require(own_ || cosine.count() == time * width, "there are cosines for every position");
  }

  /** y[d] = x[d] cos[d] + x[d +- D/2] sin[d], the rotation's sign being in sin. Su et al. 2021, arXiv:2104.09864. @param token of the batch, row by row */
  void rotate(const float* x, float* y, int64_t token) const { turn(x, y, token, 0); }

  /** The transpose. */
  void rotate_back(const float* g, float* dx, int64_t token) const { turn(g, dx, token, width_ / 2); }

 private:
  /** @param shift of the sines: the transpose of x[d + D/2] sin[d] is g[d - D/2] sin[d - D/2] */
  void turn(const float* from, float* to, int64_t token, int64_t shift) const {
    const int64_t half = width_ / 2;
    const float* c = cosine_ + (own_ ? token : token % time_) * width_;
    const float* s = sine_ + (own_ ? token : token % time_) * width_;
    for_each_vector(half, [&](int64_t at, int count) {
      const f32x8 low = load_up_to(from + at, count);
      const f32x8 high = load_up_to(from + half + at, count);
      store_up_to(to + at, low * load_up_to(c + at, count) + high * load_up_to(s + shift + at, count), count);
      store_up_to(to + half + at, high * load_up_to(c + half + at, count) + low * load_up_to(s + half - shift + at, count), count);
    });
  }

  const float* const cosine_;
  const float* const sine_;
  const int64_t time_;
  const int64_t width_;
  const bool own_;
};

/** Calls body(token, part, flat, headed) for every head of every token: its place in [batch * time, all heads * width] and in its part's [batch, heads, time, width]. */
template <typename Body>
void for_each_head(int64_t batch, int64_t time, int64_t width, const int64_t (&heads)[3], Body&& body) {
  const int64_t columns = (heads[0] + heads[1] + heads[2]) * width;
  parallel_ranges(batch * time, std::max<int64_t>(1, kNumbersPerChunk / columns), [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      int64_t flat = token * columns;
      for (int part = 0; part < 3; ++part) {
        for (int64_t head = 0; head < heads[part]; ++head, flat += width) body(token, part, flat, (((token / time) * heads[part] + head) * time + token % time) * width);
      }
    }
  });
}

/** Cuts projected queries, keys and values into heads and rotates the first two. */
class RotaryHeads {
 public:
  explicit RotaryHeads(Attributes& attributes) : batch_(attributes.integer("batch")), heads_{attributes.integer("query_heads"), attributes.integer("key_heads"), attributes.integer("key_heads")} {}

  void operator()(Call& call) const {
    const View x = call.input(0);
    const View cosine = call.input(1);
    const View sine = call.input(2);
    const int64_t heads = heads_[0] + heads_[1] + heads_[2];
    require(x.rank() == 2 && batch_ > 0 && x.dim(0) % batch_ == 0 && heads > 0 && x.dim(1) % heads == 0, "heads are cut from [batch * time, heads * width]");
    const int64_t time = x.dim(0) / batch_;
    const int64_t width = x.dim(1) / heads;
    const Positions positions(cosine, sine, batch_, time, width);
    const View parts[] = {call.output(0, {batch_, heads_[0], time, width}), call.output(1, {batch_, heads_[1], time, width}), call.output(2, {batch_, heads_[2], time, width})};
    for_each_head(batch_, time, width, heads_, [&](int64_t token, int part, int64_t flat, int64_t headed) {
      const float* from = x.floats() + flat;
      float* to = parts[part].floats() + headed;
      if (part == 2) std::copy(from, from + width, to);
      else positions.rotate(from, to, token);
    });
  }

 private:
  const int64_t batch_;
  const int64_t heads_[3];
};

class RotaryHeadsGradient {
 public:
  explicit RotaryHeadsGradient(Attributes&) {}

  void operator()(Call& call) const {
    const View parts[] = {call.input(0), call.input(1), call.input(2)};
    const View cosine = call.input(3);
    const View sine = call.input(4);
    for (const View& part : parts) require(part.rank() == 4 && part.dim(0) == parts[0].dim(0) && part.dim(2) == parts[0].dim(2) && part.dim(3) == parts[0].dim(3), "gradients of heads are [batch, heads, time, width]");
    const int64_t batch = parts[0].dim(0), time = parts[0].dim(2), width = parts[0].dim(3);
    const int64_t heads[3] = {parts[0].dim(1), parts[1].dim(1), parts[2].dim(1)};
    const Positions positions(cosine, sine, batch, time, width);
    const View dx = call.output(0, {batch * time, (heads[0] + heads[1] + heads[2]) * width});
    for_each_head(batch, time, width, heads, [&](int64_t token, int part, int64_t flat, int64_t headed) {
      const float* from = parts[part].floats() + headed;
      float* to = dx.floats() + flat;
      if (part == 2) std::copy(from, from + width, to);
      else positions.rotate_back(from, to, token);
    });
  }
};

/** Rotates [batch, heads, time, width]. */
class Rope {
 public:
  explicit Rope(Attributes& attributes) : back_(attributes.integer("back") != 0) {}

  void operator()(Call& call) const {
    const View x = call.input(0);
    const View cosine = call.input(1);
    const View sine = call.input(2);
    require(x.rank() == 4, "heads are [batch, heads, time, width]");
    const int64_t heads = x.dim(1), time = x.dim(2), width = x.dim(3);
    const Positions positions(cosine, sine, x.dim(0), time, width);
    const View y = call.output(0, x.shape());
    parallel_ranges(x.dim(0) * heads * time, std::max<int64_t>(1, kNumbersPerChunk / width), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t token = row / (heads * time) * time + row % time;
        if (back_) positions.rotate_back(x.floats() + row * width, y.floats() + row * width, token);
        else positions.rotate(x.floats() + row * width, y.floats() + row * width, token);
      }
    });
  }

 private:
  const bool back_;
};

/** Keys and values of one size, [batch, heads, slots, width], and what is added to the scores of their slots: nothing, or as much in every row or a row's own. */
struct Cache {
  Cache(const View& k, const View& v, const View* added) : keys(k.floats()), values(v.floats()), batch(k.dim(0)), heads(k.dim(1)), slots(k.dim(2)), width(k.dim(3)), mask_(added ? added->floats() : nullptr), own_(added && added->count() == batch * slots) {
    require(k.rank() == 4 && k.shape() == v.shape(), "cached keys and values are [batch, heads, slots, width]");
    require(!added || own_ || added->count() == slots, "a mask has a number per slot");
  }

  /** Null: every slot is seen. */
  const float* mask(int64_t row) const { return own_ ? mask_ + row * slots : mask_; }

  float* const keys;
  float* const values;
  const int64_t batch, heads, slots, width;

 private:
  const float* const mask_;
  const bool own_;
};

/** One query per row over cached keys: softmax(q kᵀ scale + mask) v. Keys that are masked are not read. */
class SingleQuery {
 public:
  explicit SingleQuery(Attributes& attributes) : scale_(attributes.number("scale")), softcap_(attributes.number("softcap")), masks_(attributes.integer("M")) {}

  /** @param k index of its input, behind which values and the mask are */
  template <typename Body>
  void with_cache(Call& call, int k, Body&& body) const {
    const View keys = call.input(k);
    const View values = call.input(k + 1);
    if (masks_ == 0) return body(Cache(keys, values, nullptr));
    const View mask = call.input(k + 2);
    body(Cache(keys, values, &mask));
  }

  /** @param q [batch, heads, width]   @param out alike */
  void attend(const float* q, int64_t heads, const Cache& cache, float* out) const {
    require(cache.heads > 0 && heads % cache.heads == 0, "every key head serves as many query heads");
    parallel_ranges(cache.batch * heads, std::max<int64_t>(1, kNumbersPerChunk / (cache.slots * cache.width)), [&](int64_t begin, int64_t end) {
      static thread_local Scratch own;
      float* const scores = own.of(cache.slots + kLanes);
      for (int64_t at = begin; at < end; ++at) {
        const int64_t row = at / heads;
        const int64_t source = (row * cache.heads + (at % heads) / (heads / cache.heads)) * cache.slots * cache.width;
        attend(q + at * cache.width, cache.keys + source, cache.values + source, cache.mask(row), cache.slots, cache.width, scores, out + at * cache.width);
      }
    });
  }

 private:
  void attend(const float* q, const float* k, const float* v, const float* mask, int64_t slots, int64_t width, float* scores, float* out) const {
    float most = -INFINITY;
    for (int64_t slot = 0; slot < slots; ++slot) {
      if (mask && mask[slot] <= kMasked) {
        scores[slot] = -INFINITY;
        continue;
      }
      f32x8 lanes{};
      for_each_vector(width, [&](int64_t at, int count) { lanes += load_up_to(q + at, count) * load_up_to(k + slot * width + at, count); });
      float score = sum(lanes) * scale_;
      if (softcap_ > 0) score = softcap_ * std::tanh(score / softcap_);
      scores[slot] = mask ? score + mask[slot] : score;
      most = std::max(most, scores[slot]);
    }
    const float inverse = 1.0f / exponentials(scores, slots, most, scores);
    std::fill(out, out + width, 0.0f);
    for (int64_t slot = 0; slot < slots; ++slot) {
      if (scores[slot] == 0) continue;
      const float weight = scores[slot] * inverse;
      for_each_vector(width, [&](int64_t at, int count) { store_up_to(out + at, load_up_to(out + at, count) + weight * load_up_to(v + slot * width + at, count), count); });
    }
  }

  const float scale_;
  const float softcap_;
  const int64_t masks_;
};

class SingleQueryAttention {
 public:
  explicit SingleQueryAttention(Attributes& attributes) : query_(attributes) {}

  void operator()(Call& call) const {
    const View q = call.input(0);
    query_.with_cache(call, 1, [&](const Cache& cache) {
      require(q.rank() == 4 && q.dim(2) == 1 && q.dim(0) == cache.batch && q.dim(3) == cache.width, "a query is [batch, heads, 1, width]");
      const View out = call.output(0, {cache.batch, q.dim(1) * cache.width});
      query_.attend(q.floats(), q.dim(1), cache, out.floats());
    });
  }

 private:
  const SingleQuery query_;
};

/** A decoding step's attention: rotates a token's query and key, writes key and value into the cache, in place, and attends. */
class CachedAttention {
 public:
  explicit CachedAttention(Attributes& attributes) : query_(attributes) {}

  void operator()(Call& call) const {
    const View x = call.input(0);
    const View cosine = call.input(1);
    const View sine = call.input(2);
    const View places = call.input(3);
    query_.with_cache(call, 4, [&](const Cache& cache) {
      const int64_t heads = x.dim(1) / cache.width - 2 * cache.heads;
      require(x.rank() == 2 && x.dim(0) == cache.batch && heads > 0 && x.dim(1) == (heads + 2 * cache.heads) * cache.width, "a row has a token's query, key and value heads");
      require(places.count() == cache.batch * cache.heads, "every key head has a place in the cache");
      static thread_local Scratch own;
      float* const queries = own.of(cache.batch * heads * cache.width);
      const Positions positions(cosine, sine, cache.batch, 1, cache.width);
      for (int64_t row = 0; row < cache.batch; ++row) enter(x.floats() + row * x.dim(1), row, heads, positions, places.data<int32_t>() + row * cache.heads, cache, queries + row * heads * cache.width);
      const View out = call.output(0, {cache.batch, heads * cache.width});
      query_.attend(queries, heads, cache, out.floats());
    });
  }

 private:
  /** Of one token. @param places of its keys among all heads' slots */
  static void enter(const float* x, int64_t row, int64_t heads, const Positions& positions, const int32_t* places, const Cache& cache, float* queries) {
    const int64_t width = cache.width;
    for (int64_t head = 0; head < heads; ++head) positions.rotate(x + head * width, queries + head * width, row);
    const float* const k = x + heads * width;
    const float* const v = k + cache.heads * width;
    for (int64_t head = 0; head < cache.heads; ++head) {
      require(places[head] >= 0 && places[head] < cache.batch * cache.heads * cache.slots, "a place is one of the cache's slots");
      positions.rotate(k + head * width, cache.keys + places[head] * width, row);
      std::copy(v + head * width, v + (head + 1) * width, cache.values + places[head] * width);
    }
  }

  const SingleQuery query_;
};

}  // namespace

std::vector<OpDefinition> attention_ops() {
  return {
      define_op<RotaryHeads>("TunefleetRotaryHeads", {"batch: int", "query_heads: int", "key_heads: int"}, {"x: float", "cosine: float", "sine: float"}, {"q: float", "k: float", "v: float"}),
      define_op<RotaryHeadsGradient>("TunefleetRotaryHeadsGradient", {}, {"dq: float", "dk: float", "dv: float", "cosine: float", "sine: float"}, {"dx: float"}),
      define_op<Rope>("TunefleetRope", {"back: int"}, {"x: float", "cosine: float", "sine: float"}, {"y: float"}),
      define_op<SingleQueryAttention>("TunefleetSingleQueryAttention", {"scale: float", "softcap: float", "M: int >= 0"}, {"q: float", "k: float", "v: float", "mask: M * float"}, {"y: float"}),
      define_op<CachedAttention>("TunefleetCachedAttention", {"scale: float", "softcap: float", "M: int >= 0"}, {"x: float", "cosine: float", "sine: float", "places: int32", "k: float", "v: float", "mask: M * float"}, {"y: float"}),
  };
}

}  // namespace tunefleet
