// For benchmarks: how fast this processor reads memory and multiplies, with the loops the kernels are made of.

// Two streams, each fetched 4 KB ahead: of the patterns tried (1 to 16 streams, 0 to 32 KB) none was faster by more
// than two runs differ.
uint64_t read_all(const void* data, size_t bytes) {
  constexpr int kStreams = 2, kLinesAtOnce = 4;
  const char* p = static_cast<const char*>(data);
  Lanes sum[kLinesAtOnce] = {zero(), zero(), zero(), zero()};
  const size_t piece = kLinesAtOnce * 64, stream = bytes / kStreams / piece * piece;
  const auto read = [&](const char* from) {
#pragma GCC unroll 4
    for (int i = 0; i < kLinesAtOnce; i++) {
      sum[i] = maximum(sum[i], load(reinterpret_cast<const float*>(from + i * 64)));
      __builtin_prefetch(from + i * 64 + 4096);
    }
  };
  for (size_t at = 0; at < stream; at += piece)
    for (int j = 0; j < kStreams; j++) read(p + j * stream + at);
  for (size_t at = kStreams * stream; at + piece <= bytes; at += piece) read(p + at);
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
  const auto step = [&] {
    asm volatile("" : : "r"(w), "r"(x) : "memory");  // unknown and read again, so that no step is folded into another
    const auto a = T::inputs(x);
    const auto b = T::weights(w);
#pragma GCC unroll 16
    for (int i = 0; i < kChains; i++) sum[i] = T::step(sum[i], a, b);
  };
  int64_t s = 0;
  for (; s + 8 <= steps; s += 8)  // a compiler may copy every sum once a turn: not so often, then
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) step();
  for (; s < steps; s++) step();
  float out = 0.0f;
#pragma GCC unroll 16
  for (int i = 0; i < kChains; i++) out += T::value(sum[i]);
  return out;
}

float multiply_all(Number number, int64_t steps) {
  if (number == Number::float32) return multiply<Chained<Floats>>(steps);
  return number == Number::bfloat16 ? multiply<Chained<Halves>>(steps) : multiply<Integers>(steps);
}
