#include "emulator/types.h"

#include <algorithm>
#include <array>

namespace cnnkernels::emulator {

namespace {

struct Row {
  Type type;
  const char* name;
  int bytes;
};

// In the enumeration's order.
constexpr std::array<Row, 28> kTypes{{
    {Type::none, "none", 0},     {Type::pred, "pred", 0},   {Type::b8, "b8", 1},
    {Type::b16, "b16", 2},       {Type::b32, "b32", 4},     {Type::b64, "b64", 8},
    {Type::b128, "b128", 16},    {Type::u8, "u8", 1},       {Type::u16, "u16", 2},
    {Type::u32, "u32", 4},       {Type::u64, "u64", 8},     {Type::u16x2, "u16x2", 4},
    {Type::s8, "s8", 1},         {Type::s16, "s16", 2},     {Type::s32, "s32", 4},
    {Type::s64, "s64", 8},       {Type::s16x2, "s16x2", 4}, {Type::f16, "f16", 2},
    {Type::f16x2, "f16x2", 4},   {Type::bf16, "bf16", 2},   {Type::bf16x2, "bf16x2", 4},
    {Type::f32, "f32", 4},       {Type::f64, "f64", 8},     {Type::tf32, "tf32", 4},
    {Type::e4m3, "e4m3", 1},     {Type::e5m2, "e5m2", 1},   {Type::e4m3x2, "e4m3x2", 2},
    {Type::e5m2x2, "e5m2x2", 2},

}};

constexpr bool in_order() {
  for (std::size_t i = 0; i <= static_cast<std::size_t>(Type::e5m2x2); ++i)
    if (kTypes[i].type != static_cast<Type>(i)) return false;
  return true;
}
static_assert(in_order());

}  // namespace

int bytes_of(Type type) { return kTypes[static_cast<int>(type)].bytes; }

const char* name_of(Type type) { return kTypes[static_cast<int>(type)].name; }

Type type_named(std::string_view word) {
  if (word.size() < 2 || word.size() > 6 || word == "none") return Type::none;
  const auto row =
      std::find_if(kTypes.begin(), kTypes.end(), [&](const Row& row) { return word == row.name; });
  return row == kTypes.end() ? Type::none : row->type;
}

bool is_signed(Type type) { return type >= Type::s8 && type <= Type::s16x2; }

bool is_float(Type type) { return type >= Type::f16; }

}  // namespace cnnkernels::emulator
