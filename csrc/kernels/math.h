// exp, tanh, erf and the activations in lanes, and exp in float64 for the head.
//
// The polynomials are our own near-minimax fits (relative error of the fit below 4e-9); what is left is rounding, two
// units in the last place at most. The same code serves whole vectors and tails, so a value never depends on where it
// stands. Results below the smallest normal number are zero: kernels run with subnormals flushed.

// e^x, Cody and Waite reduction: x = n ln 2 + r, |r| <= ln 2 / 2.
inline Lanes exponential(Lanes x) {
  x = maximum(all(-110.0f), minimum(all(89.0f), x));  // outside: zero, infinity
  const Lanes n = nearest(x * all(1.44269504f));
  Lanes r = fma(n, all(-0.693359375f), x);
  r = fma(n, all(2.12194440e-4f), r);
  Lanes q = all(1.395171725e-03f);
  q = fma(q, r, all(8.369598410e-03f));
  q = fma(q, r, all(4.166618728e-02f));
  q = fma(q, r, all(1.666651289e-01f));
  q = fma(q, r, all(5.000000101e-01f));
  return scale_by_power(fma(q, r * r, r) + all(1.0f), n);
}

inline Lanes hyperbolic_tangent(Lanes x) {
  const Lanes size = magnitude(x), square = x * x;
  Lanes p = all(-5.528624609e-03f);
  p = fma(p, square, all(2.048330654e-02f));
  p = fma(p, square, all(-5.369296452e-02f));
  p = fma(p, square, all(1.333089971e-01f));
  p = fma(p, square, all(-3.333326288e-01f));
  const Lanes near_zero = fma(p * square, x, x);
  const Lanes far = all(1.0f) - all(2.0f) / (exponential(size + size) + all(1.0f));
  return where_less(size, all(0.65f), near_zero, with_sign(far, x));
}

inline Lanes error_function(Lanes x) {
  const Lanes size = magnitude(x), square = x * x;
  Lanes p = all(7.933108515e-05f);
  p = fma(p, square, all(-8.035031736e-04f));
  p = fma(p, square, all(5.191291815e-03f));
  p = fma(p, square, all(-2.685548418e-02f));
  p = fma(p, square, all(1.128362988e-01f));
  p = fma(p, square, all(-3.761263072e-01f));
  p = fma(p, square, all(1.28379167e-01f));  // 2 / sqrt(pi) = 1 + this
  const Lanes near_zero = fma(p, x, x);
  const Lanes z = minimum(all(4.0f), size);  // erf is 1 to the last bit from 3.92 on
  Lanes q = all(-2.149611602e-05f);          // log erfc(z)
  q = fma(q, z, all(4.391063999e-04f));
  q = fma(q, z, all(-4.193611212e-03f));
  q = fma(q, z, all(2.517896812e-02f));
  q = fma(q, z, all(-1.083724791e-01f));
  q = fma(q, z, all(-6.332626118e-01f));
  q = fma(q, z, all(-1.129556831e+00f));
  q = fma(q, z, all(1.834441861e-04f));
  const Lanes far = with_sign(all(1.0f) - exponential(q), x);
  return where_less(size, all(1.0f), near_zero, far);
}

template <Activation kind>
inline Lanes activate(Lanes x) {
  if constexpr (kind == Activation::relu) return maximum(zero(), x);  // this way round a NaN stays
  if constexpr (kind == Activation::silu) return x / (all(1.0f) + exponential(zero() - x));
  if constexpr (kind == Activation::gelu_tanh) {
    const Lanes inner = all(0.7978845608028654f) * fma(all(0.044715f) * x * x, x, x);
    return all(0.5f) * x * (all(1.0f) + hyperbolic_tangent(inner));
  }
  return all(0.5f) * x * (all(1.0f) + error_function(x * all(0.7071067811865476f)));
}

inline Lanes soft_cap(Lanes x, float cap) { return all(cap) * hyperbolic_tangent(x / all(cap)); }

// e^x in float64 for x <= 0; plain operations that every instruction set rounds alike. Below -708: zero.
inline double exponential64(double x) {
  const double shift = 6755399441055744.0;  // 1.5 * 2^52: the low bits of a sum with it are an integer
  const double clamped = x > -708.0 ? x : -708.0;
  const double whole = clamped * 1.4426950408889634 + shift;
  const double n = whole - shift;
  const double r = (clamped - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r * r + r + 1.0;
  uint64_t bits, steps;
  __builtin_memcpy(&bits, &p, sizeof bits);
  __builtin_memcpy(&steps, &whole, sizeof steps);
  bits += steps << 52;
  double out;
  __builtin_memcpy(&out, &bits, sizeof out);
  return x > -708.0 ? out : x <= -708.0 ? 0.0 : x;  // the last: NaN
}
