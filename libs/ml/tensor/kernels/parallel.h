#pragma once

#include <cstdint>

namespace tunefleet {

/**
 * Runs body(0) .. body(chunks - 1), each once, on the calling thread and the pool's. Returns when all are done.
 * Which thread takes which chunk is open, so results must not depend on it.
 * Threads: TF_NUM_INTRAOP_THREADS, as TensorFlow's own ops, else one per core.
 */
void for_each_chunk(uint32_t chunks, void (*body)(void* context, uint32_t chunk), void* context);

template <typename Body>
void parallel(uint32_t chunks, Body&& body) {
  for_each_chunk(chunks, [](void* context, uint32_t chunk) { (*static_cast<Body*>(context))(chunk); }, &body);
}

/** Cuts [0, count) into equal pieces of at least `grain`, several per thread so that a slow thread does not hold up the rest. */
void for_each_range(int64_t count, int64_t grain, void (*body)(void* context, int64_t begin, int64_t end), void* context);

template <typename Body>
void parallel_ranges(int64_t count, int64_t grain, Body&& body) {
  for_each_range(count, grain, [](void* context, int64_t begin, int64_t end) { (*static_cast<Body*>(context))(begin, end); }, &body);
}

}  // namespace tunefleet
