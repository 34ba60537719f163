// Attributes: getters and text form.
#include "ops/attrs.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"

namespace shardwright::ops {
namespace {

Attr parse(std::string_view text) {
  const Attr attr = parse_attr(text);
  EXPECT_TRUE(text.empty()) << text;
  return attr;
}

TEST(Attrs, Getters) {
  Attrs attrs{{"dim", int64_t{-1}}, {"eps", 1e-5}, {"keep", true}, {"none", std::monostate()}};
  EXPECT_EQ(attrs.integer("dim"), -1);
  EXPECT_EQ(attrs.number("dim"), -1.0);
  EXPECT_EQ(attrs.number("eps"), 1e-5);
  EXPECT_TRUE(attrs.boolean("keep"));
  EXPECT_FALSE(attrs.has("none"));
  EXPECT_EQ(attrs.integer("none", 7), 7);
  EXPECT_EQ(attrs.maybe_dtype("dtype"), std::nullopt);
  EXPECT_THROW(attrs.integer("eps"), Error);
  EXPECT_THROW(attrs.integer("missing"), Error);
  attrs.set("dim", int64_t{2});
  attrs.erase("eps");
  EXPECT_EQ(attrs.entries().size(), 3U);
  EXPECT_EQ(attrs.integer("dim"), 2);
}

TEST(Attrs, TextComesBackTheSame) {
  const double values[] = {0.0, -0.0, 1.0, 0.1, 1e300, 5e-324, -1e-5, 3.0e15, INFINITY, -INFINITY};
  for (double value : values) {
    const Attr attr = parse(to_string(Attr(value)));
    ASSERT_TRUE(std::holds_alternative<double>(attr)) << value;
    EXPECT_EQ(std::bit_cast<uint64_t>(std::get<double>(attr)), std::bit_cast<uint64_t>(value));
  }
  EXPECT_TRUE(std::isnan(std::get<double>(parse(to_string(Attr(std::nan("")))))));
  const Attr others[] = {std::monostate(),
                         true,
                         false,
                         int64_t{-3},
                         std::numeric_limits<int64_t>::max(),
                         std::string("a \"b\" \\ \n c"),
                         std::vector<int64_t>{},
                         std::vector<int64_t>{1, -2},
                         std::vector<double>{1.0, 2.5},
                         DType::kBF16,
                         DType::kBool};
  for (const Attr& attr : others) EXPECT_EQ(parse(to_string(attr)), attr) << to_string(attr);
  EXPECT_EQ(to_string(Attr(std::vector<int64_t>{1, 2})), "[1, 2]");
  EXPECT_EQ(to_string(Attr(1.0)), "1.0");
}

TEST(Attrs, ParseStopsAtTheEndOfTheAttribute) {
  std::string_view text = " [1, 2], dim=3";
  EXPECT_EQ(parse_attr(text), Attr(std::vector<int64_t>{1, 2}));
  EXPECT_EQ(text, ", dim=3");
}

TEST(Attrs, BrokenTextIsNamed) {
  for (std::string_view text : {"", "what", "[1, x]", "[1", "\"open", "1.5.2"}) {
    std::string_view rest = text;
    EXPECT_THROW(parse_attr(rest), Error) << text;
  }
}

TEST(Attrs, NormalDim) {
  EXPECT_EQ(normal_dim(-1, 3), 2);
  EXPECT_EQ(normal_dim(0, 3), 0);
  EXPECT_THROW(normal_dim(3, 3), Error);
}

}  // namespace
}  // namespace shardwright::ops
