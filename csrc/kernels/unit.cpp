// One instruction set's kernels. CMake compiles this file several times, with other flags and another OPENWORK_ISA.
//
// Everything but the table is in an anonymous namespace, and no header of the standard library but those of the C
// language is included: an inline function with a linker name, compiled here for AVX-512, could otherwise be the one
// that the linker keeps for the whole program.

#include "../kernels.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace openwork {
namespace {

#if defined(__AVX512F__)
#include "lanes_avx512.h"
#elif defined(__AVX2__)
#include "lanes_avx2.h"
#else
#include "lanes_portable.h"
#endif

#include "math.h"
#include "product.h"
#include "quantised.h"
#include "quantise.h"
#include "formats.h"
#include "rows.h"
#include "cache.h"
#include "attention/reading.h"
#include "attention/floats.h"
#include "attention/codes.h"
#include "attention/split.h"
#include "head.h"
#include "words.h"
#include "measure.h"

#define OPENWORK_JOIN_(a, b) a##b
#define OPENWORK_JOIN(a, b) OPENWORK_JOIN_(a, b)
#define OPENWORK_TEXT_(a) #a
#define OPENWORK_TEXT(a) OPENWORK_TEXT_(a)

const Kernels kTable = {
    OPENWORK_TEXT(OPENWORK_ISA),
    OPENWORK_TEXT(OPENWORK_ISA) "-v2",
    prepared_bytes,
    prepare,
    quantise,
    product,
    norm_rms,
    norm_layer,
    add,
    scale,
    cap_all,
    activate_row,
    rotate,
    embed,
    write_key,
    write_value,
    query_bytes,
    prepare_query,
    scratch_bytes,
    attend,
    merge,
    finish,
    highest,
    first_equal,
    mass,
    weigh,
    words_sum,
    read_all,
    multiply_all,
    kChains,
};

}  // namespace

const Kernels& OPENWORK_JOIN(OPENWORK_ISA, _kernels)() { return kTable; }

}  // namespace openwork
