#include "device.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "turn.h"

namespace openwork {
namespace {

constexpr std::size_t kMostSuccessors = 10000;
constexpr std::int64_t kRowUnit = 6;      // rows of a register tile: a cut elsewhere wastes part of one

std::int64_t blocks_of(std::int64_t n) { return (n + kLanes - 1) / kLanes; }

}  // namespace

void* Scratch::bytes(std::size_t size) {
  if (size > size_) {
    const std::size_t rounded = (size + size / 4 + 4095) / 4096 * 4096;
    memory_.reset();
    size_ = 0;
    memory_.reset(std::aligned_alloc(4096, rounded));
    if (!memory_) throw std::bad_alloc();
    size_ = rounded;
  }
  return memory_.get();
}

void Scratch::Free::operator()(void* p) const { std::free(p); }

std::ptrdiff_t Cache::key_tile() const {
  constexpr std::ptrdiff_t kLine = 64;
  if (number == Number::float32) return head_dim * kLine;
  if (number == Number::bfloat16) return (head_dim + 1) / 2 * kLine;
  return ((head_dim + 3) / 4 + 1) * kLine;
}

std::ptrdiff_t Cache::value_tile() const {
  const std::ptrdiff_t groups = blocks_of(head_dim), line = 64;
  if (number == Number::float32) return groups * kLanes * line;
  if (number == Number::bfloat16) return groups * kLanes / 2 * line;
  return (groups * kLanes / 4 + 1) * line;
}

std::ptrdiff_t Cache::key_bytes() const { return block_size / kLanes * key_tile(); }
std::ptrdiff_t Cache::value_bytes() const { return block_size / kLanes * value_tile(); }

char* Cache::keys_of(std::int64_t layer, std::int64_t block, int head) const {
  return keys + ((layer * blocks + block) * kv_heads + head) * key_bytes();
}

char* Cache::values_of(std::int64_t layer, std::int64_t block, int head) const {
  return values + ((layer * blocks + block) * kv_heads + head) * value_bytes();
}

void Device::embed(const Linear& table, const std::int64_t* ids, std::int64_t rows, float scale, float* out) {
  const Turn turn(*this);
  split(rows, 1, rows * table.k, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; row++)
      kernels_.embed(table.number, table.weights, table.k, ids[row], scale, out + row * table.k);
  });
}

// Matrices are multiplied in the same order step after step: the one that followed last time is fetched meanwhile.
void Device::expect_successor(const Linear& w) {
  const auto bytes = blocks_of(w.n) * packed_block_bytes(w.number, w.k);
  if (successors_.size() > kMostSuccessors) successors_.clear();
  if (last_) successors_[last_] = {w.weights, bytes};
  last_ = w.weights;
  const auto found = successors_.find(w.weights);
  if (found != successors_.end()) pool_.expect(found->second.first, found->second.second);
}

// Columns are cut over the workers; only where there are few columns and many rows are rows.
void Device::multiply(const void* prepared, std::ptrdiff_t stride, std::int64_t rows, const Linear& w, float* y) {
  const Product p{w.number, w.weights, prepared, stride, y, w.n, w.bias, w.n, w.k};
  const std::int64_t blocks = blocks_of(w.n), work = rows * w.n * w.k / 4;
  if (rows <= kFewRows) expect_successor(w);
  if (rows <= kFewRows || blocks >= 16 * pool_.threads()) {
    split(blocks, blocks < 8 * pool_.threads() ? 1 : 4, work,
          [&](std::int64_t begin, std::int64_t end, int) { kernels_.product(p, begin, end, 0, rows); });
  } else {
    split(rows, kRowUnit, work,
          [&](std::int64_t begin, std::int64_t end, int) { kernels_.product(p, 0, blocks, begin, end); });
  }
}

const char* Device::prepare(const float* x, std::int64_t rows, const Linear& w) {
  const std::ptrdiff_t stride = kernels_.prepared_bytes(w.number, w.k);
  char* prepared = input_.take<char>(rows * stride);
  split(rows, 1, rows * w.k, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; row++)
      kernels_.prepare(w.number, x + row * w.k, 0, w.k, prepared + row * stride);
  });
  return prepared;
}

void Device::prepare_and_multiply(const float* x, std::int64_t rows, const Linear& w, float* y) {
  if (w.number == Number::float32 && rows <= kFewRows) return multiply(x, w.k * 4, rows, w, y);
  multiply(prepare(x, rows, w), kernels_.prepared_bytes(w.number, w.k), rows, w, y);
}

void Device::linear(const float* x, std::int64_t rows, const Linear& w, float* out) {
  const Turn turn(*this);
  prepare_and_multiply(x, rows, w, out);
}

void Device::logits(const float* x, std::int64_t rows, const Linear& w, float softcap, float* out) {
  const Turn turn(*this);
  prepare_and_multiply(x, rows, w, out);
  if (softcap == 0.0f) return;
  split(rows * w.n, kPieceSize, rows * w.n,
        [&](std::int64_t begin, std::int64_t end, int) { kernels_.soft_cap(out + begin, softcap, end - begin); });
}

void Device::norm_row(const Norm& w, const float* x, float* out) const {
  (w.centered ? kernels_.norm_layer : kernels_.norm_rms)(x, w.weight, w.bias, w.eps, w.size, out);
}

void Device::norm(const float* x, std::int64_t rows, const Norm& w, float* out) {
  const Turn turn(*this);
  split(rows, 1, rows * w.size, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; row++) norm_row(w, x + row * w.size, out + row * w.size);
  });
}

void Device::add(float* x, const float* y, std::int64_t size) {
  const Turn turn(*this);
  split(size, kPieceSize, size / 4,
        [&](std::int64_t begin, std::int64_t end, int) { kernels_.add(x + begin, y + begin, end - begin); });
}

void Device::act(const float* x, std::int64_t size, Activation kind, float* out) {
  const Turn turn(*this);
  split(size, kPieceSize, size, [&](std::int64_t begin, std::int64_t end, int) {
    kernels_.activate(kind, x + begin, nullptr, end - begin, out + begin);
  });
}

void Device::copy_blocks(const Cache& cache, const std::int64_t* sources, const std::int64_t* targets,
                         std::size_t count) {
  const Turn turn(*this);
  const std::size_t keys = static_cast<std::size_t>(cache.key_bytes()) * cache.kv_heads;
  const std::size_t values = static_cast<std::size_t>(cache.value_bytes()) * cache.kv_heads;
  const auto work = static_cast<std::int64_t>(count * (keys + values) / 8) * cache.layers;
  split(cache.layers, 1, work,
        [&](std::int64_t begin, std::int64_t end, int) {  // a pair may read what one before wrote
          for (std::int64_t layer = begin; layer < end; layer++)
            for (std::size_t i = 0; i < count; i++) {
              if (sources[i] == targets[i]) continue;
              std::memcpy(cache.keys_of(layer, targets[i], 0), cache.keys_of(layer, sources[i], 0), keys);
              std::memcpy(cache.values_of(layer, targets[i], 0), cache.values_of(layer, sources[i], 0), values);
            }
        });
}

std::uint64_t Device::read_all(const void* data, std::size_t bytes) {
  const Turn turn(*this);
  const int parts = kPartsPerThread * pool_.threads();
  std::vector<std::uint64_t> found(static_cast<std::size_t>(parts));
  pool_.deal(parts, [&](int number, int) {
    const Share part = share(static_cast<std::int64_t>(bytes), number, parts, 4096);
    found[static_cast<std::size_t>(number)] =
        kernels_.read_all(static_cast<const char*>(data) + part.begin, static_cast<std::size_t>(part.end - part.begin));
  });
  std::uint64_t all = 0;
  for (const std::uint64_t one : found) all ^= one;
  return all;
}

float Device::multiply_all(Number number, std::int64_t steps) {
  const Turn turn(*this);
  pool_.deal(pool_.threads(), [&](int, int) { kernels_.multiply_all(number, steps); });
  return 0.0f;
}

}  // namespace openwork
