// Over the vocabulary: the highest entry, the mass of a softmax, and the weights that sampling draws from.

float highest(const float* x, int64_t size) {
  const Lanes infinite = all(__builtin_inff());
  Lanes top = zero() - infinite, doubt = zero();
  each_sixteen(size, [&](int64_t i, int lanes) {
    const Lanes y = between(load_some(x + i, lanes), 0, lanes, top);
    top = maximum(top, y);
    doubt = where_less(y, infinite, doubt, all(1.0f));  // infinite or not a number
  });
  if (tree_max(doubt) != 0.0f)
    for (int64_t i = 0; i < size; i++)
      if (x[i] != x[i]) return x[i];
  return tree_max(top);
}

int64_t first_equal(const float* x, int64_t size, float value) {
  const int64_t whole = size / kLanes * kLanes;
  int64_t i = 0;
  for (; i < whole; i += kLanes) {
    int found = 0;
    for (int j = 0; j < kLanes; j++) found |= x[i + j] == value;
    if (found) break;
  }
  for (; i < size; i++)
    if (x[i] == value) return i;
  return 0;  // only when the value is NaN
}

double mass(const float* x, int64_t size, double high) {
  double sum[kLanes] = {}, e[kLanes];
  const int64_t whole = size / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    for (int j = 0; j < kLanes; j++) e[j] = exponential64(static_cast<double>(x[i + j]) - high);
    for (int j = 0; j < kLanes; j++) sum[j] += e[j];
  }
  for (int64_t i = whole; i < size; i++) sum[i - whole] += exponential64(static_cast<double>(x[i]) - high);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int j = 0; j < width; j++) sum[j] += sum[j + width];
  return sum[0];
}

// The sum is one chain of additions; the next sixteen exponentials run beside it.
double weigh(const float* x, int64_t size, double high, double rate, double least, double* out, double* sums) {
  const auto weight_of = [&](float value) {
    const double weight = exponential64((static_cast<double>(value) - high) * rate);
    return weight < least ? 0.0 : weight;
  };
  const int64_t whole = size / kLanes * kLanes;
  double sum = 0;
  for (int64_t i = 0; i < whole; i += kLanes) {
    if (i % kRun == 0) sums[i / kRun] = sum;
    double e[kLanes];
    for (int j = 0; j < kLanes; j++) e[j] = weight_of(x[i + j]);
    for (int j = 0; j < kLanes; j++) out[i + j] = e[j];
#pragma GCC unroll 16
    for (int j = 0; j < kLanes; j++) sum += e[j];
  }
  if (whole < size && whole % kRun == 0) sums[whole / kRun] = sum;
  for (int64_t i = whole; i < size; i++) {
    out[i] = weight_of(x[i]);
    sum += out[i];
  }
  return sum;
}
