// The parts of a layer, and a whole layer, as one operation each: what lies between two products stays in scratch.
//
//     rows -> norm -> q k v -> heads -> attention -> out -> + rows -> norm -> up -> activation -> down -> + rows
//
// Adding, norming and preparing the next product's input are one pass over a row. Each step is the one that the single
// operations take, in the same order, so a layer in one call gives the bits of a layer in many.
#include "device.h"
#include "turn.h"

namespace openwork {
namespace {

constexpr std::int64_t kSlice = 64;  // columns: whole groups of every format

}  // namespace

// x (rows, size) = x + y if there is one; then normed, if there is a norm, and made ready for the product with w.
const char* Device::prepare_rows(float* x, const float* y, std::int64_t rows, const Norm& norm, const Linear& w) {
  const std::ptrdiff_t stride = kernels_.prepared_bytes(w.number, w.k);
  char* prepared = input_.take<char>(rows * stride);
  float* normed = normed_.take<float>(w.k * pool_.threads());
  split(rows, 1, rows * w.k, [&](std::int64_t begin, std::int64_t end, int worker) {
    float* own = normed + worker * w.k;
    for (std::int64_t row = begin; row < end; row++) {
      if (y) kernels_.add(x + row * w.k, y + row * w.k, w.k);
      norm_row(norm, x + row * w.k, own);
      kernels_.prepare(w.number, own, 0, w.k, prepared + row * stride);
    }
  });
  return prepared;
}

// Prepared rows through up and the activation, ready for the product with down. Few rows, or a width that is no
// multiple of a group: all of up, and then the activation.
void Device::up_and_activate(const char* prepared, std::int64_t rows, const Mlp& w, char* inner) {
  if (rows > kFewRows && w.down.k % kSlice == 0) return up_in_slices(prepared, rows, w, inner);
  const std::int64_t size = w.down.k, pieces = (size + kPieceSize - 1) / kPieceSize;
  const std::ptrdiff_t stride = kernels_.prepared_bytes(w.down.number, size);
  float* up = wide_.take<float>(rows * w.up.n);
  multiply(prepared, kernels_.prepared_bytes(w.up.number, w.up.k), rows, w.up, up);
  split(rows * pieces, 1, 4 * rows * size, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; i++) {
      const std::int64_t row = i / pieces, first = i % pieces * kPieceSize;
      const std::int64_t last = first + kPieceSize < size ? first + kPieceSize : size;
      float* gate = up + row * w.up.n;
      kernels_.activate(w.activation, gate + first, w.gated ? gate + size + first : nullptr, last - first,
                        gate + first);
      kernels_.prepare(w.down.number, gate, first, last, inner + row * stride);
    }
  });
}

// Many rows: some columns of gate and the same of up, for some rows, activated while they are in the cache.
//
//     up.n  | gate . . [slice] . . . | up . . [slice] . . . |      own  | gate slice | up slice |   a row
void Device::up_in_slices(const char* prepared, std::int64_t rows, const Mlp& w, char* inner) {
  constexpr std::int64_t kBlocks = kSlice / kLanes, kRows = 132, kWide = 2 * kSlice;
  const std::int64_t size = w.down.k, blocks = size / kLanes;
  const std::ptrdiff_t stride = kernels_.prepared_bytes(w.down.number, size);
  const std::ptrdiff_t x_stride = kernels_.prepared_bytes(w.up.number, w.up.k);
  float* memory = wide_.take<float>(kRows * kWide * pool_.threads());
  split(size / kSlice, 1, rows * w.up.n * w.up.k / 4, [&](std::int64_t begin, std::int64_t end, int worker) {
    float* own = memory + worker * kRows * kWide;
    for (std::int64_t slice = begin; slice < end; slice++)
      for (std::int64_t row = 0; row < rows; row += kRows) {
        const std::int64_t count = row + kRows < rows ? kRows : rows - row, first = slice * kSlice;
        for (int half = 0; half < (w.gated ? 2 : 1); half++) {
          const std::int64_t block = half * blocks + slice * kBlocks;
          const Product p{w.up.number, w.up.weights, prepared + row * x_stride, x_stride,
                          own + half * kSlice - block * kLanes, kWide, w.up.bias, w.up.n, w.up.k};
          kernels_.product(p, block, block + kBlocks, 0, count);
        }
        for (std::int64_t i = 0; i < count; i++) {
          float* gate = own + i * kWide;
          kernels_.activate(w.activation, gate, w.gated ? gate + kSlice : nullptr, kSlice, gate);
          kernels_.prepare(w.down.number, gate - first, first, first + kSlice, inner + (row + i) * stride);
        }
      }
  });
}

void Device::attention_block(const float* x, const Attention& w, const StepRows& rows, const Cache& cache,
                             std::int64_t layer, float* out) {
  const Turn turn(*this);
  float* qkv = wide_.take<float>(rows.count() * w.qkv.n);
  prepare_and_multiply(x, rows.count(), w.qkv, qkv);
  prepare_and_multiply(attend_projected(qkv, w, rows, cache, layer), rows.count(), w.out, out);
}

void Device::mlp_block(const float* x, std::int64_t rows, const Mlp& w, float* out) {
  const Turn turn(*this);
  const std::ptrdiff_t stride = kernels_.prepared_bytes(w.down.number, w.down.k);
  char* inner = inner_.take<char>(rows * stride);
  up_and_activate(prepare(x, rows, w.up), rows, w, inner);
  multiply(inner, stride, rows, w.down, out);
}

void Device::pre_norm_layer(float* x, const Norm& attention_norm, const Attention& attention, const Norm& mlp_norm,
                            const Mlp& mlp, const StepRows& rows, const Cache& cache, std::int64_t layer) {
  const Turn turn(*this);
  const std::int64_t count = rows.count(), size = attention.qkv.k;
  float* change = change_.take<float>(count * size);
  float* qkv = wide_.take<float>(count * attention.qkv.n);
  const char* prepared = prepare_rows(x, nullptr, count, attention_norm, attention.qkv);
  multiply(prepared, kernels_.prepared_bytes(attention.qkv.number, size), count, attention.qkv, qkv);
  prepare_and_multiply(attend_projected(qkv, attention, rows, cache, layer), count, attention.out, change);
  prepared = prepare_rows(x, change, count, mlp_norm, mlp.up);
  stamp(rows, layer, Op::output, x, size);
  const std::ptrdiff_t stride = kernels_.prepared_bytes(mlp.down.number, mlp.down.k);
  char* inner = inner_.take<char>(count * stride);
  up_and_activate(prepared, count, mlp, inner);
  multiply(inner, stride, count, mlp.down, change);
  split(count * size, kPieceSize, count * size / 4,
        [&](std::int64_t begin, std::int64_t end, int) { kernels_.add(x + begin, change + begin, end - begin); });
  stamp(rows, layer, Op::feed_forward, x, size);
}

}  // namespace openwork
