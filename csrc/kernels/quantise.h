// Quantising weights: sixteen outputs side by side, each lane a row of the matrix, into one packed column block.
//
// Only comparisons, multiplications and additions in a fixed order, so that every instruction set, and NumPy
// (ops/packed.py, where the rules are told), write the same bytes.

constexpr float kSmallest = 2.98023223876953125e-8f;  // 2^-25: nothing larger, and a group's int8 scale is zero
constexpr uint16_t kNotANumber = 0x7E00, kTooLarge = 0x7C00;  // as float16
constexpr float kPeaks[] = {-8, 8, -7, 7, -7.5f, 7.5f, -8.5f, 8.5f, -9, 9, -9.5f, 9.5f, -10, 10, -11, 11};

// The larger of top and |x|, lane by lane; what is not finite counts as infinite.
inline Lanes taller(Lanes top, Lanes x) {
  const Lanes infinite = all(__builtin_inff()), size = magnitude(x);
  return maximum(top, where_less(size, infinite, size, infinite));
}

// Four rows of lanes that hold 0 .. 255 -> one line, the four bytes of a lane side by side.
inline void store_line(uint8_t* out, Lanes a, Lanes b, Lanes c, Lanes d) {
  float values[4][kLanes];
  store(values[0], a);
  store(values[1], b);
  store(values[2], c);
  store(values[3], d);
  for (int i = 0; i < kLanes; i++) {
    const int32_t low = static_cast<int32_t>(values[0][i]) | static_cast<int32_t>(values[1][i]) << 8;
    const int32_t high = static_cast<int32_t>(values[2][i]) | static_cast<int32_t>(values[3][i]) << 8;
    const uint32_t four = static_cast<uint32_t>(low) | static_cast<uint32_t>(high) << 16;
    for (int j = 0; j < 4; j++) out[4 * i + j] = static_cast<uint8_t>(four >> 8 * j);
  }
}

// x * by to the nearest integer in least .. most, plus `offset`; x that is not finite counts as zero.
inline Lanes code_of(Lanes x, Lanes by, float least, float most, float offset) {
  const Lanes finite = where_less(magnitude(x), all(__builtin_inff()), x, zero());
  return minimum(maximum(nearest(finite * by), all(least)), all(most)) + all(offset);
}

// 1 / scale, or zero where there is no scale to divide by.
inline Lanes inverse(Lanes scale) {
  const Lanes size = magnitude(scale);
  const Lanes by = where_less(zero(), size, all(1.0f) / scale, zero());
  return where_less(size, all(__builtin_inff()), by, zero());  // a NaN compares as false
}

inline void quantise_codes(const float* x, Lanes by, uint8_t* out) {  // 32 inputs into 8 lines
  for (int q = 0; q < kGroupQuads; q++, x += 4 * kLanes, out += kLine)
    store_line(out, code_of(load(x), by, -127, 127, 128), code_of(load(x + kLanes), by, -127, 127, 128),
               code_of(load(x + 2 * kLanes), by, -127, 127, 128), code_of(load(x + 3 * kLanes), by, -127, 127, 128));
}

inline Lanes top_of(const float* x, int64_t inputs) {
  Lanes top = zero();
  for (int64_t i = 0; i < inputs; i++) top = taller(top, load(x + i * kLanes));
  return top;
}

// One group: the scale is max / 127 as float16, at least the smallest one there is, or the next one where the largest
// entry would become 128. A group with NaN or infinity, or too large for float16, has the scale NaN.
inline void quantise_int8(const float* x, uint16_t* scale, uint8_t* codes) {
  const Lanes top = top_of(x, kGroup);
  to_float16(scale, top / all(127.0f));
  for (int i = 0; i < kLanes; i++) scale[i] = static_cast<uint16_t>(scale[i] + (scale[i] == 0));
  float over[kLanes], high[kLanes];
  store(over, where_less(all(127.0f), nearest(top * inverse(from_float16(scale))), all(1.0f), zero()));
  store(high, top);
  for (int i = 0; i < kLanes; i++) {
    const uint16_t enough = static_cast<uint16_t>(scale[i] + (over[i] != 0.0f));
    scale[i] = high[i] <= kSmallest ? uint16_t{0} : enough < kTooLarge ? enough : kNotANumber;
  }
  quantise_codes(x, inverse(from_float16(scale)), codes);
}

// One group: of the scales that put the largest entry (the first of equals) at one of kPeaks the one with the least
// squared error, the first of equals. Where no error is finite, the scale is NaN.
inline void quantise_int4(const float* x, uint16_t* scale, uint8_t* codes) {
  Lanes peak = load(x);  // the first entry of the largest size
  for (int i = 1; i < kGroup; i++) {
    const Lanes next = load(x + i * kLanes);
    peak = where_less(magnitude(peak), magnitude(next), next, peak);
  }
  Lanes least = all(__builtin_inff()), best = zero();
  for (const float at : kPeaks) {
    uint16_t half[kLanes];
    to_float16(half, peak / all(at));
    const Lanes step = from_float16(half), by = inverse(step);
    Lanes error = zero();
    for (int i = 0; i < kGroup; i++) {
      const Lanes value = load(x + i * kLanes);
      const Lanes off = value - minimum(maximum(nearest(value * by), all(-8.0f)), all(7.0f)) * step;
      error = error + off * off;
    }
    best = where_less(error, least, step, best);
    least = where_less(error, least, error, least);
  }
  to_float16(scale, best);
  float found[kLanes];
  store(found, least);
  for (int i = 0; i < kLanes; i++)
    scale[i] = !(found[i] < __builtin_inff()) ? kNotANumber : scale[i] & 0x7FFF ? scale[i] : uint16_t{0};  // no -0
  const Lanes by = inverse(from_float16(scale));
  for (int q = 0; q < kGroupQuads; q += 2, x += 8 * kLanes, codes += kLine) {
    Lanes both[4];
    for (int i = 0; i < 4; i++) {
      const Lanes low = code_of(load(x + i * kLanes), by, -8, 7, 8);
      const Lanes high = code_of(load(x + (i + 4) * kLanes), by, -8, 7, 8);
      both[i] = low + high * all(16.0f);
    }
    store_line(codes, both[0], both[1], both[2], both[3]);
  }
}

// inputs (k, 16), k rounded up to whole units with zeros -> one packed block.
void quantise(Number number, const float* inputs, int64_t k, uint8_t* out) {
  if (number == Number::int8_channel) {
    const Lanes top = top_of(inputs, k);
    const Lanes some = where_less(top, all(kNearZero), zero(), top);
    const Lanes scale = where_less(some, all(__builtin_inff()), some / all(127.0f), all(__builtin_nanf("")));
    const Lanes by = where_less(zero(), some, all(127.0f) / some, zero());
    for (int64_t i = 0; i < k; i += kGroup, out += 8 * kLine)
      quantise_codes(inputs + i * kLanes, where_less(some, all(__builtin_inff()), by, zero()), out);
    store(reinterpret_cast<float*>(out), scale);
    return;
  }
  const bool wide = number == Number::int8;
  for (int64_t i = 0; i < k; i += 2 * kGroup) {
    uint16_t* scale = reinterpret_cast<uint16_t*>(out);
    out += kLine;
    for (int g = 0; g < 2; g++, scale += kLanes, out += (wide ? 8 : 4) * kLine)
      (wide ? quantise_int8 : quantise_int4)(inputs + (i + g * kGroup) * kLanes, scale, out);
  }
}
