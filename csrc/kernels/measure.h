// For benchmarks: how fast this processor reads memory and multiplies, with the loops the kernels are made of.

#ifndef RS
#define RS 2
#endif
#ifndef RA
#define RA 4096
#endif
uint64_t read_all(const void* data, size_t bytes) {
  constexpr int kStreams = RS;
  const char* p = static_cast<const char*>(data);
  Lanes sum[4] = {zero(), zero(), zero(), zero()};
  const size_t stream = bytes / kStreams / 256 * 256;
  for (size_t i = 0; i < stream; i += 256)
    for (int j = 0; j < kStreams; j++)
#pragma GCC unroll 4
      for (int l = 0; l < 4; l++) {
        const char* q = p + j * stream + i + l * 64;
        sum[l] = maximum(sum[l], load(reinterpret_cast<const float*>(q)));
        __builtin_prefetch(q + RA);
      }
  const float found = tree_max(maximum(maximum(sum[0], sum[1]), maximum(sum[2], sum[3])));
  uint32_t bits;
  __builtin_memcpy(&bits, &found, sizeof bits);
  return bits;
}

constexpr int kChains = kMaxRows * max_blocks(kMaxRows);

struct Integers {  // four inputs a step
  using Weight = uint8_t;
  using Input = QuadInput;
  static constexpr int kInputs = kQuadBytes / 4;
  using Sum = Ints;
  static Quads weights(const Weight* p) { return load_quads(p); }
  static QuadRow inputs(const Input* x) { return all_quads(x); }
  static Ints unlike(int i) { return all_ints(i); }
  static Ints step(Ints sum, QuadRow x, Quads w) { return dot_quads(sum, w, x); }
  static float value(Ints x) { return tree_sum(to_lanes(x)); }
};
template <class T>
struct Chained : T {
  using Sum = Lanes;
  static Lanes unlike(int i) { return all(static_cast<float>(i)); }
  static float value(Lanes x) { return tree_sum(x); }
};

template <class T>
float multiply(int64_t steps) {
  alignas(64) typename T::Weight w[64] = {};
  typename T::Input x[4] = {};
  typename T::Sum sum[kChains];
#pragma GCC unroll 16
  for (int i = 0; i < kChains; i++) sum[i] = T::unlike(i);  // unlike, or they would be computed once
  for (int64_t s = 0; s < steps; s++) {
    const auto a = T::inputs(x);
    const auto b = T::weights(w);
#pragma GCC unroll 16
    for (int i = 0; i < kChains; i++) sum[i] = T::step(sum[i], a, b);
    asm volatile("" : : "r"(w), "r"(x) : "memory");  // read again, so that no step is folded into another
  }
  float out = 0.0f;
#pragma GCC unroll 16
  for (int i = 0; i < kChains; i++) out += T::value(sum[i]);
  return out;
}

float multiply_all(Number number, int64_t steps) {
  if (number == Number::float32) return multiply<Chained<Floats>>(steps);
  return number == Number::bfloat16 ? multiply<Chained<Halves>>(steps) : multiply<Integers>(steps);
}
