export const QuickstartPage = () => <h1>Quickstart</h1>;
