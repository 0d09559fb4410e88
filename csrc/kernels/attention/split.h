// Attention over one split of keys, and the merging of splits (Milakov & Gimelshein 2018, online softmax).
//
//     scores   lanes are keys, a chain over head_dim
//     softmax  sixteen strided lanes (position mod 16) over the keys the query sees, one fixed tree
//     mixing   lanes are entries of the value, a chain over exactly the query's own keys, ascending
//
// A query's bits do not depend on who else is in the tile.

// Few queries read each tile once, as it comes from memory; more queries than a register tile holds read the split's
// tiles again from the cache.
template <class C>
void attend_split(const C& cache, const Queries& queries, int begin, int end, int first_tile, int last_tile,
                  const Mixture& out) {
  const bool few = end - begin <= kMaxRows;
  const int panel = few ? C::kRows : C::kPanel;
  for (int tile = first_tile; tile < last_tile; tile += kStream)
    for (int q = begin; q < end; q += panel)
      with_count<C::kRows>(end - q < panel ? end - q : panel, [&](auto rows) {
        constexpr int M = decltype(rows)::value;
        const int stop = tile + kStream < last_tile ? tile + kStream : last_tile;
        in_runs<C::template kBlocks<M>>(tile, stop, [&](int at, auto count) {
          const char* const* after = few && q == begin ? cache.reading.after_keys : nullptr;
          cache.template score<M, decltype(count)::value>(queries, q, at, after);
        });
      });
  Softened soft[kMaxQueries];
  for (int i = begin; i < end; i++) {
    soft[i] = cache.find(queries, i);
    out.high[i] = soft[i].high;
  }
  for (int i = begin; i < end; i++) cache.weigh(soft[i], i, first_tile, last_tile, out.mass + i);
  cache.mix(begin, end, first_tile, last_tile, few);
}

inline ptrdiff_t padded(int head_dim) { return (head_dim + kLanes - 1) / kLanes * kLanes; }

ptrdiff_t scratch_bytes(Number number, int head_dim) {
  const ptrdiff_t scores = kMaxQueries * kSplit * 4;
  if (number != Number::int8) return scores;
  return scores + kMaxQueries * (2 * kWeightRow + 2 * padded(head_dim) * 4 + 64);
}

void attend(const KeysValues& kv, const Queries& queries, int begin, int end, int64_t split, const Ahead& next,
            void* scratch, const Mixture& out) {
  const int64_t start = split * kSplit;
  Seen seen;
  int from = kSplit, to = 0;
  for (int i = begin; i < end; i++) {
    seen.from[i] = queries.first[i] > start ? static_cast<int>(queries.first[i] - start) : 0;
    seen.to[i] = queries.last[i] + 1 - start < kSplit ? static_cast<int>(queries.last[i] + 1 - start) : kSplit;
    from = seen.from[i] < from ? seen.from[i] : from;
    to = seen.to[i] > to ? seen.to[i] : to;
  }
  Reading reading;
  plan_reading(kv, split, from, to, next, reading);
  const int first = from / kLanes, last = (to + kLanes - 1) / kLanes;
  const ptrdiff_t dim = padded(kv.head_dim);
  float* scores = static_cast<float*>(scratch);
  if (kv.number == Number::float32) {
    attend_split(FloatCache<Floats>{kv, reading, seen, scores, out.mixed, dim}, queries, begin, end, first, last, out);
  } else if (kv.number == Number::bfloat16) {
    attend_split(FloatCache<Halves>{kv, reading, seen, scores, out.mixed, dim}, queries, begin, end, first, last, out);
  } else {
    char* weights = reinterpret_cast<char*>(scores + kMaxQueries * kSplit);
    int32_t* sums = reinterpret_cast<int32_t*>(weights + kMaxQueries * 2 * kWeightRow);
    float* scales = reinterpret_cast<float*>(sums + kMaxQueries * 2 * dim);
    attend_split(CodeCache{kv, reading, seen, scores, out.mixed, dim, weights, sums, scales}, queries, begin, end,
                 first, last, out);
  }
}

void merge(const Mixture& total, const Mixture& part, int query, int padded_dim) {
  float* a = total.mixed + static_cast<ptrdiff_t>(query) * padded_dim;
  const float* b = part.mixed + static_cast<ptrdiff_t>(query) * padded_dim;
  const Lanes high_a = all(total.high[query]), high_b = all(part.high[query]);
  const Lanes best = maximum(high_a, high_b);
  const Lanes old = exponential(high_a - best), fresh = exponential(high_b - best);
  float lanes[kLanes];
  store(lanes, best);
  total.high[query] = lanes[0];
  store(lanes, fma(all(part.mass[query]), fresh, all(total.mass[query]) * old));
  total.mass[query] = lanes[0];
  for (int d = 0; d < padded_dim; d += kLanes) store(a + d, fma(load(b + d), fresh, load(a + d) * old));
}

void finish(const Mixture& total, int query, int head_dim, float* out) {
  const int padded_dim = (head_dim + kLanes - 1) / kLanes * kLanes;
  const float* mixed = total.mixed + static_cast<ptrdiff_t>(query) * padded_dim;
  const Lanes mass = all(total.mass[query]);
  each_sixteen(head_dim, [&](int64_t i, int lanes) { store_some(out + i, load(mixed + i) / mass, lanes); });
}
