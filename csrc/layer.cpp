// The parts of a layer, and a whole layer, as one operation each: what lies between two products stays in scratch.
//
//     rows -> norm -> q k v -> heads -> attention -> out -> + rows -> norm -> up -> activation -> down -> + rows
//
// Adding, norming and preparing the next product's input are one pass over a row. Each step is the one that the single
// operations take, in the same order, so a layer in one call gives the bits of a layer in many.
#include "device.h"
#include "turn.h"

namespace openwork {

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

// up (rows, up.n) of projected rows -> down of their activations.
void Device::activate_and_multiply(float* up, std::int64_t rows, const Mlp& w, float* out) {
  const std::int64_t size = w.down.k, pieces = (size + kPieceSize - 1) / kPieceSize;
  const std::ptrdiff_t stride = kernels_.prepared_bytes(w.down.number, size);
  char* inner = inner_.take<char>(rows * stride);
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
  multiply(inner, stride, rows, w.down, out);
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
  float* up = wide_.take<float>(rows * w.up.n);
  prepare_and_multiply(x, rows, w.up, up);
  activate_and_multiply(up, rows, w, out);
}

void Device::pre_norm_layer(float* x, const Norm& attention_norm, const Attention& attention, const Norm& mlp_norm,
                            const Mlp& mlp, const StepRows& rows, const Cache& cache, std::int64_t layer) {
  const Turn turn(*this);
  const std::int64_t count = rows.count(), size = attention.qkv.k;
  float* change = change_.take<float>(count * size);
  float* wide = wide_.take<float>(count * (attention.qkv.n > mlp.up.n ? attention.qkv.n : mlp.up.n));
  const char* prepared = prepare_rows(x, nullptr, count, attention_norm, attention.qkv);
  multiply(prepared, kernels_.prepared_bytes(attention.qkv.number, size), count, attention.qkv, wide);
  prepare_and_multiply(attend_projected(wide, attention, rows, cache, layer), count, attention.out, change);
  prepared = prepare_rows(x, change, count, mlp_norm, mlp.up);
  multiply(prepared, kernels_.prepared_bytes(mlp.up.number, size), count, mlp.up, wide);
  activate_and_multiply(wide, count, mlp, change);
  split(count * size, kPieceSize, count * size / 4,
        [&](std::int64_t begin, std::int64_t end, int) { kernels_.add(x + begin, change + begin, end - begin); });
}

}  // namespace openwork
