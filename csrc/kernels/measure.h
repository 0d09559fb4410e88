// For benchmarks: how fast this processor reads memory and multiplies, with the loops the kernels are made of.

uint64_t read_all(const void* data, size_t bytes) {
  const char* p = static_cast<const char*>(data);
  Lanes sum[8] = {zero(), zero(), zero(), zero(), zero(), zero(), zero(), zero()};
  const size_t stream = bytes / 8 / 64 * 64;  // eight streams, as a product of one row reads eight column blocks
  for (size_t i = 0; i < stream; i += 64)
    for (int j = 0; j < 8; j++) {
      const char* q = p + j * stream + i;
      sum[j] = maximum(sum[j], load(reinterpret_cast<const float*>(q)));
      __builtin_prefetch(q + 4096);
    }
  Lanes top = sum[0];
  for (int j = 1; j < 8; j++) top = maximum(top, sum[j]);
  const float found = tree_max(top);
  uint32_t bits;
  __builtin_memcpy(&bits, &found, sizeof bits);
  return bits;
}

constexpr int kChains = kMaxRows * max_blocks(kMaxRows);

template <class T>
float multiply(int64_t steps) {
  alignas(64) typename T::Weight w[32] = {};
  typename T::Input x[2] = {};
  Lanes sum[kChains];
#pragma GCC unroll 16
  for (int i = 0; i < kChains; i++) sum[i] = all(static_cast<float>(i));  // unlike, or they would be computed once
  for (int64_t s = 0; s < steps; s++) {
    const typename T::W a = T::inputs(x), b = T::weights(w);
#pragma GCC unroll 16
    for (int i = 0; i < kChains; i++) sum[i] = T::step(sum[i], a, b);
    asm volatile("" : : "r"(w), "r"(x) : "memory");  // read again, so that no step is folded into another
  }
  Lanes out = zero();
#pragma GCC unroll 16
  for (int i = 0; i < kChains; i++) out = out + sum[i];
  return tree_sum(out);
}

float multiply_all(Number number, int64_t steps) {
  return number == Number::float32 ? multiply<Floats>(steps) : multiply<Halves>(steps);
}
