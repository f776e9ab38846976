// Attention without scores in memory, forwards and backwards: Dao et al. 2022, arXiv:2205.14135; Dao 2023, arXiv:2307.08691.
#include <algorithm>
#include <cmath>
#include <memory>

#include "kernel.h"
#include "ops.h"
#include "parallel.h"
#include "tiles.h"
#include "visible_keys.h"

namespace tunefleet {
namespace {

/** Pieces of work that a gradient is cut into at least, where it has as many tiles of keys. Results depend on it, so it must not depend on the threads. */
constexpr int64_t kGradientTasks = 12;
/** Numbers that are worth handing to another thread. */
constexpr int64_t kNumbersPerChunk = 1 << 14;

/** Queries [batch, heads, queries, width]; keys and values [batch, key heads, keys, width]: query head h has key head h / group. */
struct Sizes {
  int64_t batch, heads, key_heads, queries, keys, width;

  Sizes(const View& q, const View& k, const View& v) {
    require(q.rank() == 4 && k.rank() == 4 && k.shape() == v.shape() && q.dim(0) == k.dim(0) && q.dim(3) == k.dim(3), "queries are [batch, heads, time, width], keys and values [batch, key heads, keys, width]");
    require(k.dim(1) > 0 && q.dim(1) % k.dim(1) == 0, "every key head serves as many query heads");
    batch = q.dim(0), heads = q.dim(1), key_heads = k.dim(1), queries = q.dim(2), keys = k.dim(2), width = q.dim(3);
  }

  int64_t group() const { return heads / key_heads; }
  int64_t key_rows() const { return batch * key_heads; }
  int64_t query_tiles() const { return (queries + kTile - 1) / kTile; }
  int64_t key_tiles() const { return (keys + kTile - 1) / kTile; }
  int64_t packed() const { return panels_of(width) * kPanel * kTile; }
  /** The first of the query heads that have this key head, counted through the batch. */
  int64_t first_head(int64_t key_row) const { return key_row * group(); }
};

/** How scores become weights. */
struct Scoring {
  float scale;
  float softcap;
  int64_t masks;

  explicit Scoring(Attributes& attributes) : scale(attributes.number("scale")), softcap(attributes.number("softcap")), masks(attributes.integer("M")) {}

  std::unique_ptr<VisibleKeys> visible(Call& call, int index, const Sizes& sizes) const {
    if (masks == 0) return std::make_unique<VisibleKeys>(sizes.keys);
    return std::make_unique<VisibleKeys>(call.input(index), sizes.batch, sizes.queries, sizes.keys);
  }
};

/** Room of the calling thread for the arrays of one task. */
class TaskMemory {
 public:
  explicit TaskMemory(int64_t numbers) {
    thread_local Scratch scratch;
    next_ = scratch.of(numbers);
  }

  float* take(int64_t numbers) {
    float* const taken = next_;
    next_ += numbers;
    return taken;
  }

 private:
  float* next_;
};

/** What a row's loops work on: whole vectors around the keys that it sees. */
Span whole_vectors(const Span& seen) { return {seen.from / kLanes * kLanes, (seen.to + kLanes - 1) / kLanes * kLanes}; }

void clear_beside(const Span& vectors, float* row) {
  for (int at = 0; at < kTile; at += kLanes) {
    if (at < vectors.from || at >= vectors.to) store(row + at, f32x8{});
  }
}

/** Output, and log sum exp of the scores; zeros for a query that sees no key. */
class FlashAttention {
 public:
  explicit FlashAttention(Attributes& attributes) : scoring_(attributes) {}

  void operator()(Call& call) const {
    const View q = call.input(0);
    const View k = call.input(1);
    const View v = call.input(2);
    const Sizes sizes(q, k, v);
    const auto visible = scoring_.visible(call, 3, sizes);
    const View out = call.output(0, q.shape());
    const View log_sums = call.output(1, {sizes.batch, sizes.heads, sizes.queries});
    // Chunks begin with the last, which under a causal mask has the most keys.
    parallel(static_cast<uint32_t>(sizes.key_rows() * sizes.query_tiles()), [&](uint32_t task) {
      attend(sizes, *visible, task % sizes.key_rows(), task / sizes.key_rows(), q.floats(), k.floats(), v.floats(), out.floats(), log_sums.floats());
    });
  }

 private:
  /** One tile of queries, of all heads that share their keys. */
  void attend(const Sizes& sizes, const VisibleKeys& visible, int64_t key_row, int64_t query_tile, const float* q, const float* k, const float* v, float* out, float* log_sums) const {
    const int64_t width = sizes.width, group = sizes.group();
    const int64_t query = query_tile * kTile;
    const int queries = static_cast<int>(std::min<int64_t>(kTile, sizes.queries - query));
    TaskMemory memory(kTile * width + sizes.packed() + kTile * kTile + 2 * group * kTile);
    float* const keys = memory.take(kTile * width);
    float* const values = memory.take(sizes.packed());
    float* const scores = memory.take(kTile * kTile);
    float* const most = memory.take(group * kTile);
    float* const totals = memory.take(group * kTile);
    std::fill(most, most + group * kTile, -INFINITY);
    std::fill(totals, totals + group * kTile, 0.0f);
    const auto row_of = [&](int64_t head) { return (sizes.first_head(key_row) + head) * sizes.queries + query; };
    for (int64_t head = 0; head < group; ++head) std::fill_n(out + row_of(head) * width, queries * width, 0.0f);
    for (int64_t key = 0; key < sizes.keys; key += kTile) {
      const TileOfScores tile(visible, key_row / sizes.key_heads, query, queries, key, static_cast<int>(std::min<int64_t>(kTile, sizes.keys - key)));
      if (tile.empty()) continue;
      const int64_t source = (key_row * sizes.keys + key) * width;
      pack_columns(k + source, tile.keys(), width, scoring_.scale, keys);
      pack_rows(v + source, tile.keys(), width, 1.0f, values);
      for (int64_t head = 0; head < group; ++head) {
        float* const rows = out + row_of(head) * width;
        multiply_spanned(q + row_of(head) * width, queries, width, keys, tile.keys_of_groups(), scores);
        for (int i = 0; i < queries; ++i) weigh(tile, i, scores + i * kTile, most[head * kTile + i], totals[head * kTile + i], rows + i * width, width);
        add_product<false>(scores, queries, tile.keys_of_groups(), values, width, rows);
      }
    }
    for (int64_t head = 0; head < group; ++head) {
      for (int i = 0; i < queries; ++i) {
        const float total = totals[head * kTile + i];
        multiply_row(out + (row_of(head) + i) * width, width, total == 0 ? 0.0f : 1.0f / total);
        log_sums[row_of(head) + i] = total == 0 ? 0.0f : most[head * kTile + i] + std::log(total);
      }
    }
  }

  /** Scores become weights relative to the highest score so far; what is summed already is brought to the same measure. Milakov and Gimelshein 2018, arXiv:1805.02867. */
  void weigh(const TileOfScores& tile, int query, float* scores, float& most, float& total, float* out, int64_t width) const {
    const Span vectors = whole_vectors(tile.seen_by(query));
    clear_beside(vectors, scores);
    if (vectors.empty()) return;
    if (scoring_.softcap > 0) {
      for (int at = vectors.from; at < vectors.to; at += kLanes) store(scores + at, scoring_.softcap * tanh(load(scores + at) / scoring_.softcap));
    }
    tile.fill_unseen(query, vectors.from, vectors.to, -INFINITY, scores);
    f32x8 highest = all(most);
    for (int at = vectors.from; at < vectors.to; at += kLanes) highest = max(load(scores + at), highest);
    const float next = maximum(highest);
    if (next != most) {
      const float factor = std::exp(most - next);
      if (total != 0) multiply_row(out, width, factor);
      total *= factor;
      most = next;
    }
    f32x8 sums{};
    for (int at = vectors.from; at < vectors.to; at += kLanes) {
      const f32x8 weights = exp(load(scores + at) - next);
      store(scores + at, weights);
      sums += weights;
    }
    total += sum(sums);
  }

  static void multiply_row(float* row, int64_t width, float factor) {
    for_each_vector(width, [&](int64_t at, int count) { store_up_to(row + at, load_up_to(row + at, count) * factor, count); });
  }

  const Scoring scoring_;
};

/** Gradients of queries, keys and values; scores are computed again. */
class FlashAttentionGradient {
 public:
  explicit FlashAttentionGradient(Attributes& attributes) : scoring_(attributes) {}

  void operator()(Call& call) const {
    const View g = call.input(0);
    const View q = call.input(1);
    const View k = call.input(2);
    const View v = call.input(3);
    const View out = call.input(4);
    const View log_sums = call.input(5);
    const Sizes sizes(q, k, v);
    require(g.shape() == q.shape() && out.shape() == q.shape() && log_sums.shape() == Shape{sizes.batch, sizes.heads, sizes.queries}, "the gradient of attention wants what its forward pass gave");
    const auto visible = scoring_.visible(call, 6, sizes);
    const View dq = call.output(0, q.shape());
    const View dk = call.output(1, k.shape());
    const View dv = call.output(2, v.shape());
    const std::unique_ptr<float[]> deltas(new float[log_sums.count()]);
    row_products(g.floats(), out.floats(), log_sums.count(), sizes.width, deltas.get());
    const Operands from{g.floats(), q.floats(), k.floats(), v.floats(), log_sums.floats(), deltas.get()};
    // Some tiles of keys are one task. Each sums its own gradient of the queries, the first where the sum of all will be.
    const int64_t parts = std::max<int64_t>(1, std::min(sizes.key_tiles(), (kGradientTasks + sizes.key_rows() - 1) / sizes.key_rows()));
    const std::unique_ptr<float[]> partial(new float[(parts - 1) * q.count()]);
    parallel(static_cast<uint32_t>(parts * sizes.key_rows()), [&](uint32_t task) {
      // Chunks begin with the last; under a causal mask the first keys have the most queries.
      const int64_t part = parts - 1 - task / sizes.key_rows();
      float* const queries = part == 0 ? dq.floats() : partial.get() + (part - 1) * q.count();
      differentiate(sizes, *visible, task % sizes.key_rows(), part * sizes.key_tiles() / parts, (part + 1) * sizes.key_tiles() / parts, from, {queries, dk.floats(), dv.floats()});
    });
    if (parts > 1) add_partial(dq.floats(), partial.get(), parts - 1, q.count());
  }

 private:
  struct Operands {
    const float* g;
    const float* q;
    const float* k;
    const float* v;
    const float* log_sums;
    /** Row sums of g * out, which equal those of dP * P. */
    const float* deltas;
  };

  struct Gradients {
    float* q;
    float* k;
    float* v;
  };

  /** All queries that see some tiles of keys, of all heads that share these. */
  void differentiate(const Sizes& sizes, const VisibleKeys& visible, int64_t key_row, int64_t first_tile, int64_t last_tile, const Operands& from, const Gradients& to) const {
    const int64_t width = sizes.width, group = sizes.group();
    TaskMemory memory(2 * kTile * width + 2 * sizes.packed() + 2 * kTile * kTile);
    float* const keys = memory.take(kTile * width);
    float* const values = memory.take(kTile * width);
    float* const key_rows = memory.take(sizes.packed());
    float* const query_rows = memory.take(sizes.packed());
    float* const weights = memory.take(kTile * kTile);
    float* const slopes = memory.take(kTile * kTile);
    std::fill_n(to.q + sizes.first_head(key_row) * sizes.queries * width, group * sizes.queries * width, 0.0f);
    for (int64_t key = first_tile * kTile; key < std::min(sizes.keys, last_tile * kTile); key += kTile) {
      const int count = static_cast<int>(std::min<int64_t>(kTile, sizes.keys - key));
      const int64_t source = (key_row * sizes.keys + key) * width;
      pack_columns(from.k + source, count, width, scoring_.scale, keys);
      pack_columns(from.v + source, count, width, 1.0f, values);
      pack_rows(from.k + source, count, width, scoring_.scale, key_rows);
      std::fill_n(to.k + source, count * width, 0.0f);
      std::fill_n(to.v + source, count * width, 0.0f);
      for (int64_t query = 0; query < sizes.queries; query += kTile) {
        const TileOfScores tile(visible, key_row / sizes.key_heads, query, static_cast<int>(std::min<int64_t>(kTile, sizes.queries - query)), key, count);
        if (tile.empty()) continue;
        for (int64_t head = 0; head < group; ++head) {
          const int64_t row = (sizes.first_head(key_row) + head) * sizes.queries + query;
          multiply_spanned(from.q + row * width, tile.queries(), width, keys, tile.keys_of_groups(), weights);
          multiply_spanned(from.g + row * width, tile.queries(), width, values, tile.keys_of_groups(), slopes);
          for (int i = 0; i < tile.queries(); ++i) differentiate_row(tile, i, from.log_sums[row + i], from.deltas[row + i], weights + i * kTile, slopes + i * kTile);
          pack_rows(from.g + row * width, tile.queries(), width, 1.0f, query_rows);
          add_product<true>(weights, count, tile.queries_of_groups(), query_rows, width, to.v + source);
          // Its scale, as the keys have theirs.
          pack_rows(from.q + row * width, tile.queries(), width, scoring_.scale, query_rows);
          add_product<true>(slopes, count, tile.queries_of_groups(), query_rows, width, to.k + source);
          add_product<false>(slopes, tile.queries(), tile.keys_of_groups(), key_rows, width, to.q + row * width);
        }
      }
    }
  }

  /** Scores become weights, and gradients of the weights those of the scores. */
  void differentiate_row(const TileOfScores& tile, int query, float log_sum, float delta, float* scores, float* slopes) const {
    const Span vectors = whole_vectors(tile.seen_by(query));
    clear_beside(vectors, scores);
    clear_beside(vectors, slopes);
    if (vectors.empty()) return;
    for (int at = vectors.from; at < vectors.to; at += kLanes) {
      f32x8 score = load(scores + at);
      f32x8 slope = load(slopes + at) - delta;
      if (scoring_.softcap > 0) {
        const f32x8 bend = tanh(score / scoring_.softcap);
        score = scoring_.softcap * bend;
        slope *= 1.0f - bend * bend;
      }
      const f32x8 weight = exp(score - log_sum);
      store(scores + at, weight);
      store(slopes + at, weight * slope);
    }
    tile.fill_unseen(query, vectors.from, vectors.to, 0.0f, scores);
    tile.fill_unseen(query, vectors.from, vectors.to, 0.0f, slopes);
  }

  static void row_products(const float* a, const float* b, int64_t rows, int64_t width, float* sums) {
    parallel_ranges(rows, std::max<int64_t>(1, kNumbersPerChunk / width), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        f32x8 lanes{};
        for_each_vector(width, [&](int64_t at, int count) { lanes += load_up_to(a + row * width + at, count) * load_up_to(b + row * width + at, count); });
        sums[row] = sum(lanes);
      }
    });
  }

  static void add_partial(float* to, const float* parts, int64_t count, int64_t numbers) {
    parallel_ranges(numbers, kNumbersPerChunk, [&](int64_t begin, int64_t end) {
      for (int64_t part = 0; part < count; ++part) {
        const float* const from = parts + part * numbers;
        for_each_vector(end - begin, [&](int64_t at, int lanes) { store_up_to(to + begin + at, load_up_to(to + begin + at, lanes) + load_up_to(from + begin + at, lanes), lanes); });
      }
    });
  }

  const Scoring scoring_;
};

}  // namespace

std::vector<OpDefinition> flash_attention_ops() {
  return {
      define_op<FlashAttention>("TunefleetFlashAttention", {"scale: float", "softcap: float", "M: int >= 0"}, {"q: float", "k: float", "v: float", "visible: M * int32"}, {"y: float", "log_sums: float"}),
      define_op<FlashAttentionGradient>("TunefleetFlashAttentionGradient", {"scale: float", "softcap: float", "M: int >= 0"}, {"g: float", "q: float", "k: float", "v: float", "y: float", "log_sums: float", "visible: M * int32"}, {"dq: float", "dk: float", "dv: float"}),
  };
}

}  // namespace tunefleet
